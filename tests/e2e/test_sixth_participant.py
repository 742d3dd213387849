"""The loyalty example joins a running platform as `docs/adding-a-participant.md` says: nothing else has to change."""

import io
import zipfile
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from deploy.local import sixth
from deploy.local.child import Child
from deploy.local.shop import Account, Shop, key, until
from docs.examples.loyalty.models import Card, CardHolder
from libs.common.db import Database
from libs.common.personal.keys import KeyringClient
from libs.common.personal.tombstones import guard
from libs.common.personal.vault import Vault
from tests.e2e.conftest import Running

_NAME_ON_CARD = "Quill Featherstonehaugh"


@pytest.fixture(scope="session")
async def loyalty(running: Running) -> Child:
    """The worker of the sixth participant, with a database and a key of its own.

    It stays as long as the platform: who has announced itself is waited for in every request.
    """
    return await sixth.start(running.platform, running.loyalty_key)


async def test_a_sixth_participant_is_asked_answers_and_forgets(running: Running, loyalty: Child) -> None:
    shop = running.shop
    merchant = await shop.sign_up(f"merchant-{uuid4().hex}@vitrine.example")
    owner = await shop.open_store(merchant, name="Loyal", slug=f"loyal-{uuid4().hex[:8]}")
    await until(lambda: _is_announced(shop, owner), "the sixth participant to be known")
    assert "CardHolder" in await until(lambda: _data_map(shop, owner), "the new store to be known")
    person = await shop.sign_up(f"person-{uuid4().hex}@vitrine.example", store_id=owner.store_id)
    cards = Database(loyalty.environment["LOYALTY_DATABASE_URL"], pool_size=1)
    await _give_card(loyalty, cards, person)

    exported = await _ask(shop, person, "access")
    assert _part(exported, "export")["counts"] == {"card": 1}
    archive = await _download(shop, person)
    assert _NAME_ON_CARD in archive and '"points"' in archive

    erased = await _ask(shop, person, "erasure")
    assert _part(erased, "erase")["counts"] == {"card": 1}
    assert (_part(erased, "erase")["state"], _part(erased, "verify-erased")["state"]) == ("done", "done")
    assert await cards.read(UUID(owner.store_id), "SELECT count(*) FROM card") == 0
    await cards.close()


async def _data_map(shop: Shop, owner: Account) -> str | None:
    answer = await shop.http.get(f"/privacy/v1/stores/{owner.store_id}/data-map")
    return answer.text if answer.is_success else None


async def _is_announced(shop: Shop, owner: Account) -> bool | None:
    listed = await shop.call("GET", "/privacy/v1/participants", headers=owner.headers)
    return any(one["name"] == "loyalty" and one["announced_at"] for one in listed["items"]) or None


async def _give_card(loyalty: Child, cards: Database, person: Account) -> None:
    """What the page says under “To write a box”."""
    store_id = UUID(person.store_id)
    async with httpx.AsyncClient() as http:
        vault = Vault(
            KeyringClient(
                url=loyalty.environment["KEYRING_URL"],
                service="loyalty",
                private_key=loyalty.environment["LOYALTY_SERVICE_KEY"],
                http=http,
            )
        )
        subject_id = await vault.subject_id(store_id, person.email)
        sealed = await vault.seal(CardHolder(name=_NAME_ON_CARD), store_id=store_id, subject_id=subject_id)
    async with cards.session(store_id) as session:
        await guard(session, store_id, subject_id, sealed.generation)
        session.add(
            Card(
                store_id=store_id,
                subject_id=subject_id,
                generation=sealed.generation,
                holder=sealed.box,
                points=40,
            )
        )


async def _ask(shop: Shop, person: Account, right: str) -> dict[str, Any]:
    path = f"/privacy/v1/stores/{person.store_id}/requests"
    body = {"right": right, "email": person.email}
    opened = await shop.call("POST", path, json=body, headers=person.headers | key(), expect=201)

    async def look() -> dict[str, Any] | None:
        seen = await shop.call("GET", f"{path}/{opened['id']}", headers=person.headers)
        return seen if seen["state"] == "completed" else None

    return await until(look, f"the request for {right} to be completed")


def _part(request: dict[str, Any], task: str) -> dict[str, Any]:
    [part] = [one for one in request["parts"] if (one["participant"], one["task"]) == ("loyalty", task)]
    return part


async def _download(shop: Shop, person: Account) -> str:
    _, _, token = (await shop.link_in_mail(person.email, "/download")).partition("#token=")
    answer = await shop.download(token)
    archive = zipfile.ZipFile(io.BytesIO(answer.content))
    return b"".join(archive.read(name) for name in archive.namelist()).decode()
