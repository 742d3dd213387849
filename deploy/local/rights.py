"""The chapters of the demo in which people use their rights and a merchant answers them."""

from datetime import date
from typing import Any

from deploy.local.shop import Account, Order, Shop, key, until
from deploy.local.told import expect, say

MARKETING = "marketing.communications.email"
SUPPORT = "essential.service.operations.support"


class Rights:
    """One person with an account, one without, and the store's owner, who is its privacy officer too."""

    def __init__(self, shop: Shop, *, owner: Account, person: Account, order: Order, run: str) -> None:
        self.shop = shop
        self.owner = owner
        self.person = person
        self.order = order
        self.passer_by = f"passer-by-{run}@vitrine.example"
        self.path = f"/privacy/v1/stores/{owner.store_id}/requests"

    # --- Asking and answering ----------------------------------------------------------------------------

    async def ask(self, right: str, **more: Any) -> dict[str, Any]:
        """A request of the person who is signed in."""
        body = {"right": right, "email": self.person.email, **more}
        return await self.shop.call(
            "POST", self.path, json=body, headers=self.person.headers | key(), expect=(200, 201)
        )

    async def reaches(self, request: dict[str, Any], *states: str) -> dict[str, Any]:
        """The request once it is in one of these states, as the store sees it."""

        async def look() -> dict[str, Any] | None:
            seen = await self.shop.call("GET", f"{self.path}/{request['id']}", headers=self.owner.headers)
            return seen if seen["state"] in states else None

        return await until(look, f"the request for {request['right']} to be {' or '.join(states)}")

    async def previewed(self, request: dict[str, Any]) -> dict[str, Any]:
        """What every participant holds, once all have counted."""

        async def look() -> dict[str, Any] | None:
            path = f"{self.path}/{request['id']}/preview"
            seen = await self.shop.call("GET", path, headers=self.owner.headers)
            return None if seen["unanswered"] else seen

        return await until(look, "everybody to say what they hold")

    async def decide(self, request: dict[str, Any], what: str, **body: Any) -> dict[str, Any]:
        """What the store does with the request: a decision, an extension."""
        path = f"{self.path}/{request['id']}"
        tag = (await self.shop.http.get(path, headers=self.owner.headers)).headers["etag"]
        headers = self.owner.headers | key() | {"If-Match": tag}
        return await self.shop.call("POST", f"{path}/{what}", json=body, headers=headers)

    # --- Chapters ----------------------------------------------------------------------------------------

    async def rectification(self) -> None:
        """A name is wrong: the store looks, approves, and every box that holds it says what is right."""
        correction = {"category": "user.name", "value": "A corrected guest", "reason": "It was misspelt."}
        request = await self.ask("rectification", corrections=[correction])
        preview = await self.previewed(request)
        rows = sum(held["count"] for part in preview["parts"] for held in part["held"])
        expect(rows > 0 and preview["clear"], f"the store sees what would change, {rows} rows, and no value")
        await self.decide(request, "decision", approve=True)
        done = await self.reaches(request, "completed")
        changed = {part["participant"]: part["counts"] for part in done["parts"] if part["counts"]}
        expect("orders" in changed and "identity" in changed, f"approved, and sealed anew: {changed}")
        seen = await self.shop.order(self.order, self.owner.headers)
        expect(seen["contact"]["name"] == "A corrected guest", "the order shows the name as it should be")
        invoice = await self.invoice()
        expect(
            invoice["buyer"]["name"] != "A corrected guest" and len(invoice["corrections"]) == 1,
            "the invoice stays as it was issued; the correction lies beside it",
        )

    async def invoice(self) -> dict[str, Any]:
        """The order's invoice, as the merchant sees it."""
        path = f"/billing/v1/stores/{self.owner.store_id}/invoices"
        listed = await self.shop.call("GET", path, headers=self.owner.headers)
        found = next(one for one in listed["items"] if one["order_id"] == self.order.id)
        return await self.shop.call("GET", f"{path}/{found['id']}", headers=self.owner.headers)

    async def restriction(self, variant: str) -> None:
        """On hold, and open again; meanwhile the person buys as anybody else."""
        await self.reaches(await self.ask("restriction"), "completed")
        seen = await self.shop.order(self.order, self.owner.headers)
        expect(seen["on_hold"] and seen["contact"] is None, "the order says “on hold”, and shows nobody")
        another = await self.shop.check_out(self.owner.store_id, self.person.email, {variant: 1})
        await self.shop.order_settles(another, "awaiting_payment")
        fresh = await self.shop.order(another, self.owner.headers)
        expect(
            not fresh["on_hold"] and bool(fresh["contact"]), "the person buys again, and that order goes on"
        )
        await self.reaches(await self.ask("restriction-lifting"), "completed")
        seen = await self.shop.order(self.order, self.owner.headers)
        expect(not seen["on_hold"] and bool(seen["contact"]), "lifted: the first order opens again")

    async def objections(self) -> None:
        """To marketing at once; to anything else it is the store's to weigh, and to refuse with a ground."""
        done = await self.reaches(await self.ask("objection", purpose=MARKETING), "completed")
        expect(done["decision"] == "by-itself", "an objection to marketing is carried out at once")
        weighed = await self.ask("objection", purpose=SUPPORT)
        await self.previewed(weighed)
        why = "Without it nobody could answer the questions that the person asked us."
        await self.decide(weighed, "decision", refuse="compelling-grounds", explanation=why)
        refused = await self.reaches(weighed, "refused")
        expect(
            refused["authority"] == "GDPR, Art. 21(1)",
            f"refused on a ground of the law: {refused['authority']}",
        )
        mail = await self.shop.mail(self.person.email, why)
        expect(
            refused["supervisor"]["website"] in mail["text"],
            f"the mail says why, and where to complain: {refused['supervisor']['name']}",
        )

    async def stranger(self) -> None:
        """A request by somebody without an account, whose order is paid and not sent: it takes longer, and ends."""
        forms = f"/privacy/v1/stores/{self.owner.store_id}/request-forms"
        sent = [
            await self.shop.http.post(forms, json={"right": "access", "email": email}, headers=key())
            for email in (self.passer_by, f"nobody-{self.passer_by}")
        ]
        expect(
            [one.status_code for one in sent] == [202, 202] and sent[0].text == sent[1].text,
            "the reply to an unknown address is the reply to a known one",
        )
        link, waiting = await self.sent_to_stranger("access")
        expect(waiting["state"] == "verifying", "it waits until the mail's link is followed")
        await self.shop.call("POST", "/privacy/v1/confirmations", json=link)

        async def over() -> bool | None:
            seen = await self.shop.call("POST", "/privacy/v1/status", json=link)
            return seen["state"] == "completed" or None

        await until(over, "the stranger's request to be completed")
        say("followed, answered, and seen without an account")

    async def more_time(self, passer_by: Order) -> None:
        """An erasure of somebody whose order is on its way is for somebody to look at; that takes longer."""
        forms = f"/privacy/v1/stores/{self.owner.store_id}/request-forms"
        body = {"right": "erasure", "email": self.passer_by}
        await self.shop.call("POST", forms, json=body, headers=key(), expect=202)
        link, _ = await self.sent_to_stranger("erasure")
        await self.shop.call("POST", "/privacy/v1/confirmations", json=link)
        request = await self.waiting("erasure")
        preview = await self.previewed(request)
        words = [one["word"] for part in preview["parts"] for one in part["obligations"]]
        expect(words == ["order-under-way"], f"order {passer_by.number} speaks against it: {words}")
        before = (await self.reaches(request, "deciding"))["due_on"]
        extended = await self.decide(request, "extension", reason="complexity")
        expect(
            date.fromisoformat(extended["due_on"]) > date.fromisoformat(before),
            f"extended from {before} to {extended['due_on']}, and the person is told why",
        )
        await self.shop.mail(self.passer_by, extended["due_on"][:4])
        await self.decide(request, "decision", approve=True)
        await self.reaches(request, "completed")
        say("the store approves, and it is done")

    async def sent_to_stranger(self, right: str) -> tuple[dict[str, str], dict[str, Any]]:
        """What the newest mail's link holds, and the request behind it, once that mail is about this right."""

        async def look() -> tuple[dict[str, str], dict[str, Any]] | None:
            link = await self.shop.link_in_mail(self.passer_by, "/privacy/request")
            sent = {"token": link.partition("#token=")[2]}
            seen = await self.shop.call("POST", "/privacy/v1/status", json=sent)
            return (sent, seen) if seen["right"] == right else None

        return await until(look, f"a mail about the request for {right}")

    async def waiting(self, right: str) -> dict[str, Any]:
        """The store's request for a right that waits for a decision."""

        async def look() -> dict[str, Any] | None:
            found = await self.shop.call(
                "GET", self.path, params={"state": "deciding", "right": right}, headers=self.owner.headers
            )
            return found["items"][0] if found["items"] else None

        return await until(look, f"a request for {right} to wait for the store")
