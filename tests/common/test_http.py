"""The manners every interface has: problems that repeat nothing, bounds, commits before answers, replies once."""

import asyncio
import gc
import json
from collections.abc import AsyncIterator
from typing import Annotated
from uuid import UUID, uuid4

import httpx
import pytest
from fastapi import APIRouter, FastAPI, Request, Response
from joserfc.jwk import ECKey
from pydantic import BaseModel, Field
from sqlalchemy import text

from libs.common.auth import Manager, StoreId
from libs.common.errors import Conflict, Unavailable
from libs.common.http import (
    IfMatch,
    Session,
    build_app,
    decode_cursor,
    encode_cursor,
    require_match,
    set_etag,
)
from libs.common.idempotency import IdempotencyKey, once
from libs.common.settings import ServiceSettings
from tests.common.conftest import Common

router = APIRouter(prefix="/stores/{store_id}")


class Thing(BaseModel):
    name: Annotated[str, Field(min_length=1, max_length=10)]


class Made(BaseModel):
    id: UUID
    count: int


async def _effect(session: Session, subject: str) -> int:
    await session.execute(text("INSERT INTO effect (subject, number) VALUES (:s, 1)"), {"s": subject})
    found = await session.execute(text("SELECT count(*) FROM effect WHERE subject = :s"), {"s": subject})
    return int(found.scalar_one())


@router.post("/things")
async def make(
    request: Request,
    store_id: StoreId,
    thing: Thing,
    session: Session,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    async def made() -> tuple[Made, str]:
        if thing.name == "never":
            await _effect(session, thing.name)
            raise Conflict("It is never allowed.")
        return Made(id=uuid4(), count=await _effect(session, str(store_id))), "/here"

    return await once(session, request, idempotency_key, store_id=store_id, caller="test", make=made)


@router.put("/things")
async def change(response: Response, if_match: IfMatch = None) -> Thing:
    require_match(if_match, 3)
    set_etag(response, 4)
    return Thing(name="changed")


@router.get("/broken")
async def broken() -> None:
    raise RuntimeError("secret@person.example")


@router.get("/away")
async def away(how: str) -> None:
    refused = ConnectionRefusedError("secret@person.example")
    raise (Unavailable() if how == "told" else refused) from refused


@router.get("/managed")
async def managed(caller: Manager) -> None: ...


@router.post("/late")
async def late(session: Session) -> Thing:
    """The commit fails after the route has returned."""
    await session.execute(
        text("CREATE TEMP TABLE t (a int, CONSTRAINT once UNIQUE (a) DEFERRABLE INITIALLY DEFERRED)")
    )
    await session.execute(text("INSERT INTO t VALUES (1), (1)"))
    return Thing(name="done")


@pytest.fixture
async def app(common: Common) -> AsyncIterator[FastAPI]:
    key = json.dumps(ECKey.generate_key("P-256", auto_kid=True).as_dict(private=True))
    settings = ServiceSettings(database_url=common.url, service_key=key, database_pool_size=20)  # type: ignore[arg-type]
    made = build_app(service="testing", settings=settings, title="Testing", description="", routers=[router])
    async with made.router.lifespan_context(made):
        yield made


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://testing") as client:
        yield client


def things(common: Common) -> str:
    return f"/testing/v1/stores/{common.store_id}/things"


async def effects(common: Common, subject: str) -> int:
    async with common.database.platform_session() as session:
        found = await session.execute(text("SELECT count(*) FROM effect WHERE subject = :s"), {"s": subject})
        return int(found.scalar_one())


def is_problem(answer: httpx.Response, status: int) -> dict[str, object]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, object] = answer.json()
    assert problem["status"] == status
    assert problem["title"]
    return problem


async def test_an_invalid_body_is_told_where_and_why_and_never_repeated(
    common: Common, client: httpx.AsyncClient
) -> None:
    secret = "secret@person.example"
    answer = await client.post(things(common), json={"name": secret * 3, secret: 1})
    problem = is_problem(answer, 422)
    assert problem["errors"] == [{"at": "body/name", "reason": "string_too_long"}]
    assert secret not in answer.text
    assert secret not in (await client.post(things(common), content=f'{{"name": "{secret}')).text


@pytest.mark.parametrize("how", ["told", "found"])
async def test_why_somebody_was_turned_away_is_in_the_log_by_the_name_of_its_class(
    common: Common, client: httpx.AsyncClient, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    answer = await client.get(f"/testing/v1/stores/{common.store_id}/away?how={how}")
    assert is_problem(answer, 503)["type"] == "/problems/unavailable"
    assert answer.headers["retry-after"] == "2"
    [record] = [one for one in caplog.records if one.levelname == "WARNING"]
    said = vars(record)
    assert (said["route"], said["outcome"], said["error"]) == (
        "/stores/{store_id}/away", "unavailable", "ConnectionRefusedError",
    )  # fmt: skip
    assert "secret" not in caplog.text + answer.text


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/testing/v1/nowhere", 404),
        ("DELETE", "/testing/v1/stores/{store}/things", 405),
        ("POST", "/testing/v1/stores/no-uuid/things", 422),
        ("POST", "/testing/v1/stores/{store}/things", 422),
        ("GET", "/testing/v1/stores/{store}/broken", 500),
        ("GET", "/testing/v1/stores/{store}/managed", 401),
    ],
)
async def test_every_refusal_is_a_problem(
    common: Common, client: httpx.AsyncClient, method: str, path: str, status: int
) -> None:
    answer = await client.request(method, path.format(store=common.store_id))
    is_problem(answer, status)
    assert "secret" not in answer.text


async def test_broken_json_is_400(common: Common, client: httpx.AsyncClient) -> None:
    headers = {"content-type": "application/json"}
    is_problem(await client.post(things(common), content=b"{", headers=headers), 400)
    is_problem(await client.post(things(common), content=b"\xff", headers=headers), 400)


@pytest.mark.parametrize("declared", [True, False])
async def test_ten_megabytes_are_refused(common: Common, client: httpx.AsyncClient, declared: bool) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(160):
            yield b"x" * 65536

    content = b"x" * 10 * 1024 * 1024 if declared else chunks()
    answer = await client.post(things(common), content=content, headers={"content-type": "application/json"})
    is_problem(answer, 413)
    assert await effects(common, str(common.store_id)) == 0


async def test_a_commit_that_fails_is_never_answered_with_success(
    common: Common, client: httpx.AsyncClient
) -> None:
    answer = await client.post(f"/testing/v1/stores/{common.store_id}/late")
    is_problem(answer, 500)


async def test_if_match_is_needed_and_must_be_current(common: Common, client: httpx.AsyncClient) -> None:
    is_problem(await client.put(things(common)), 428)
    is_problem(await client.put(things(common), headers={"If-Match": '"2"'}), 412)
    answer = await client.put(things(common), headers={"If-Match": '"3"'})
    assert (answer.status_code, answer.headers["etag"]) == (200, '"4"')


async def test_fifty_requests_with_one_key_have_one_effect(common: Common, client: httpx.AsyncClient) -> None:
    headers = {"Idempotency-Key": str(uuid4())}
    answers = await asyncio.gather(
        *(client.post(things(common), json={"name": "one"}, headers=headers) for _ in range(50))
    )
    made = [answer for answer in answers if answer.status_code == 201]
    assert {answer.status_code for answer in answers} <= {201, 409, 503}
    assert len({answer.content for answer in made}) == 1
    assert sum("idempotency-replayed" not in answer.headers for answer in made) == 1
    assert {answer.headers["location"] for answer in made} == {"/here"}
    assert await effects(common, str(common.store_id)) == 1


async def test_a_key_belongs_to_its_request(common: Common, client: httpx.AsyncClient) -> None:
    headers = {"Idempotency-Key": str(uuid4())}
    await client.post(things(common), json={"name": "one"}, headers=headers)
    is_problem(await client.post(things(common), json={"name": "two"}, headers=headers), 422)
    other_store = f"/testing/v1/stores/{uuid4()}/things"
    assert (await client.post(other_store, json={"name": "two"}, headers=headers)).status_code == 201


async def test_a_refused_request_leaves_its_key_free_and_no_effect(
    common: Common, client: httpx.AsyncClient
) -> None:
    headers = {"Idempotency-Key": str(uuid4())}
    is_problem(await client.post(things(common), json={"name": "never"}, headers=headers), 409)
    assert await effects(common, "never") == 0
    assert (await client.post(things(common), json={"name": "one"}, headers=headers)).status_code == 201


@pytest.mark.parametrize("key", ["short", "x" * 201, "with space in it"])
async def test_a_malformed_key_is_refused(common: Common, client: httpx.AsyncClient, key: str) -> None:
    is_problem(await client.post(things(common), json={"name": "one"}, headers={"Idempotency-Key": key}), 422)


@pytest.mark.parametrize("cursor", ["", "!!", "W10", "WzFd", "WyJ4IiwxLDJd", "x" * 399])
def test_a_foreign_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(Exception, match="not one of this list"):
        decode_cursor(cursor, str, int)


def test_a_cursor_comes_back_as_it_was() -> None:
    assert decode_cursor(encode_cursor("ünï", 7), str, int) == ("ünï", 7)


async def test_who_serves_does_not_look_for_garbage_all_the_time(client: httpx.AsyncClient) -> None:
    """References free what a request makes, and to look among all that is new costs more than it finds."""
    looked = gc.get_stats()[0]["collections"]
    await asyncio.gather(*(client.get("/test/healthz/live") for _ in range(200)))
    assert gc.get_stats()[0]["collections"] - looked <= 3
