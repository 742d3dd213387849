"""From the registration of a recipient to a request that ends when it has said that it is done."""

from sqlalchemy import text
from standardwebhooks import Webhook

from deploy.local.waiting import until
from libs.common.events.privacy import Verb
from tests.privacy.recipients.conftest import Outside
from tests.privacy.recipients.receiver import done
from tests.privacy.test_thread import ENDS_WITHIN, Running, running

__all__ = ["running"]


async def test_an_erasure_ends_once_the_recipient_outside_has_erased(outside: Outside) -> None:
    platform = outside.platform
    recipient = await outside.active()
    outside.receiver.answering = done
    person = await platform.person()
    request_id = await outside.erased_but_outside(person)
    # Everybody inside has erased, and the request goes on: somebody has still to do so.
    assert await platform.state(person, request_id) == "running"
    await outside.deliver()
    [came] = outside.receiver.of("privacy.erase")
    Webhook(recipient["secret"]).verify(came.body, dict(came.headers))
    told = came.json["data"]
    assert told["request_id"] == str(request_id)
    assert told["person"]["emails"] == [person.email]
    part = await outside.part(person, request_id, recipient)
    assert (part["state"], part["counts"]) == ("done", {"contact": 1})
    assert await platform.state(person, request_id) == "checking"
    await platform.ask_keyring()
    await platform.answer_all(request_id, Verb.VERIFY_ERASED)
    assert await platform.state(person, request_id) == "completed"


async def test_a_platform_at_work_tells_everybody_and_forgets_all_it_has_of_it(
    running: Running, outside: Outside
) -> None:
    """Real workers, a real shop: names are collected, keys destroyed, the recipient told, and all is read again."""
    platform = running.platform
    recipient = await outside.registered()
    assert (await outside.call("POST", f"/{recipient['id']}/tests")).status_code == 202

    async def is_active() -> bool:
        return (await outside.one(recipient))["state"] == "active"

    await until(is_active, ENDS_WITHIN, "the test was not taken")
    outside.receiver.answering = done
    person = await platform.person()
    await running.purchase(person)
    async with running.shop_worker():
        request_id = await platform.opened(person, "erasure")
        detail = await running.ended(person, request_id)
    [came] = outside.receiver.of("privacy.erase")
    told = came.json["data"]["person"]
    assert told["emails"] == [person.email] and len(told["orders"]) == 1
    states = {(one["participant"], one["task"]): one["state"] for one in detail["parts"]}
    assert states["test-shop", "refer"] == "done"
    assert states[f"recipient-{recipient['id']}", "erase"] == "done"
    assert states["privacy", "verify-erased"] == "done"
    # What was told lies under the request's own key, and is of that request alone.
    async with platform.database.session(platform.store_id) as session:
        kept = await session.scalar(text("SELECT count(*) FROM delivery WHERE body IS NOT NULL"))
    assert kept == 1
