"""The evidence log: what it has, that nothing of it can be changed, lost or doubled, and that whatever is shows."""

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from joserfc.jwk import ECKey
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from deploy.local.databases import database
from deploy.local.postgres import PostgresServer
from libs.common.db import Database, fetch
from libs.common.errors import Unavailable
from libs.common.events.privacy import Outcome, Verb
from services.privacy.domain.verification import Proof
from services.privacy.engine import decisions
from services.privacy.evidence import ending, placing
from services.privacy.evidence.entries import Noted, Step, note
from services.privacy.evidence.placing import key_of
from tests.privacy.conftest import EVERYBODY, Platform
from tests.privacy.evidence import certified, erased, fetched, issue, knows_the_store, log_of, place
from vitrine import log, merkle, signing
from vitrine.certificate import Altered
from vitrine.heads import Head
from vitrine.merkle import Growing
from vitrine.signing import Keys


@pytest.fixture
async def hostile(postgres: PostgresServer) -> Any:
    """A superuser, whom neither triggers nor policies bind: a hostile administrator."""
    connection = await postgres.connect(database("privacy"))
    await connection.execute("SET session_replication_role = replica")
    yield connection
    await connection.close()


# --- What is in it ---------------------------------------------------------------------------------------


async def entries(platform: Platform) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in await log_of(platform)]
    return [line["entry"] for line in lines if "entry" in line]


async def test_every_step_of_an_erasure_is_there_in_its_order(platform: Platform) -> None:
    person, request_id, _ = await certified(platform)
    said = await entries(platform)
    assert {one["request"] for one in said} == {str(request_id)}
    steps = [
        (one["step"], one["facts"].get("verb") or one["facts"].get("participant") or "")
        for one in said
        if one["step"] != "told"
    ]
    assert steps == [
        ("opened", ""), ("verified", ""), ("decided", ""), ("issued", "erase"),
        ("answered", "erase"), ("answered", "erase"), ("answered", "erase"),
        ("checking", ""), ("issued", "verify-erased"),
        ("answered", "verify-erased"), ("answered", "verify-erased"), ("answered", "verify-erased"),
        ("completed", ""), ("certified", ""),
    ]  # fmt: skip
    issued = [one["facts"]["participants"] for one in said if one["step"] == "issued"]
    assert issued == [["keyring", "privacy", "test-shop"]] * 2
    everything = b"".join(await log_of(platform)).decode()
    for personal in (person.email, str(person.subject_id), "canary"):
        assert personal not in everything


async def test_what_the_desk_does_is_there_by_account(platform: Platform) -> None:
    await platform.decides(passing={"erasure": "officer"})
    person = await platform.person()
    request_id = await platform.opened(person, "erasure")
    officer = platform.officer(sub=(account := str(uuid4())))
    platform.officer = lambda **_: officer  # type: ignore[method-assign]
    for what, body, method in (
        ("assignment", {"account_id": account}, "PUT"),
        ("extension", {"reason": "complexity"}, "POST"),
        ("question", {"text": "Which order?"}, "POST"),
        ("decision", {"refuse": "excessive", "explanation": "Asked ten times this year."}, "POST"),
    ):
        done = await platform.do(request_id, what, body, method=method)
        assert done.status_code < 300, done.text
    await place(platform)
    said = {one["step"]: one["facts"] for one in await entries(platform)}
    assert said["assigned"] == {"to": account}
    assert said["extended"]["why"] == "complexity" and said["extended"]["due_on"]
    assert said["stopped"] == {}
    assert said["decided"] == {"decision": "refused", "by": account, "ground": "excessive"}
    assert (said["refused"]["ground"], said["refused"]["right"]) == ("excessive", "erasure")
    assert "Which order?" not in str(said) and "ten times" not in str(said)


async def test_a_proof_and_an_approval_are_there(platform: Platform) -> None:
    await platform.decides(passing={"erasure": "officer"}, enough={"erasure": ["document"]})
    request_id = await platform.opened(await platform.person(), "erasure")
    async with platform.database.session(platform.store_id) as session:
        row = await decisions.locked(session, platform.store_id, request_id)
        await decisions.prove(session, row, Proof.DOCUMENT, now=datetime.now(UTC), expected=EVERYBODY)
    assert (await platform.do(request_id, "decision", {"approve": True})).status_code < 300
    await place(platform)
    steps = [one["step"] for one in await entries(platform)]
    assert [one for one in steps if one not in {"issued", "told"}] == [
        "opened",
        "proved",
        "verified",
        "decided",
    ]


async def test_an_answer_is_kept_with_its_own_signature(platform: Platform) -> None:
    await certified(platform)
    [answer] = [
        one["facts"]
        for one in await entries(platform)
        if one["facts"].get("participant") == "test-shop" and one["facts"]["verb"] == "verify-erased"
    ]
    assert answer["signature"] and answer["reread"] == ["shop_order"]
    assert answer["skipped"] == {"outbox": "names-nobody"}


async def test_an_export_that_lacks_a_piece_is_noted_as_a_failure_that_nobody_signed(
    platform: Platform,
) -> None:
    request_id = await platform.opened(await platform.person(), "access")
    await platform.deliver(platform.answer(request_id, Verb.EXPORT, Outcome.DONE, chunks=2, digest="ab" * 32))
    await place(platform)
    said = [one["facts"] for one in await entries(platform) if one["step"] in {"answered", "anew"}]
    assert [(one.get("outcome"), one.get("reason"), one.get("round")) for one in said] == [
        ("failed", "incomplete", 1), (None, None, 2),
    ]  # fmt: skip
    assert "signature" not in said[0]


# --- Its place -------------------------------------------------------------------------------------------


async def noted(platform: Platform, *steps: tuple[UUID, int]) -> None:
    async with platform.database.session(platform.store_id) as session:
        await note(
            session, platform.store_id, [Noted(id_, Step.ANEW, {"round": number}) for id_, number in steps]
        )


async def rounds(platform: Platform) -> dict[str, list[int]]:
    """By request, in the order of the log; that it is whole is checked on the way."""
    lines = await log_of(platform)
    log.audit(lines, Keys(log.keys_in(lines)))
    found: dict[str, list[int]] = {}
    for one in await entries(platform):
        found.setdefault(one["request"], []).append(one["facts"]["round"])
    return found


async def test_nothing_is_lost_doubled_or_out_of_order_however_transactions_overlap(
    platform: Platform,
) -> None:
    requests = [uuid4() for _ in range(6)]
    lock = {one: asyncio.Lock() for one in requests}
    ended = asyncio.Event()

    async def writes(request: UUID) -> None:
        for number in range(12):
            # As whoever notes a step holds its request, and some transactions are slower than others.
            async with lock[request], platform.database.session(platform.store_id) as session:
                await note(session, platform.store_id, [Noted(request, Step.ANEW, {"round": number})])
                if number % 3 == 0:
                    await fetch(session, "SELECT pg_sleep(0.01)")

    async def places() -> None:
        while not ended.is_set():
            await placing.place_in(platform.work, platform.store_id, key_of(platform.work.settings))

    placers = [asyncio.create_task(places()) for _ in range(3)]
    await asyncio.gather(*(writes(one) for one in requests))
    ended.set()
    await asyncio.gather(*placers)
    await place(platform)
    assert await rounds(platform) == {str(one): list(range(12)) for one in requests}


@pytest.mark.parametrize("line", ["_TAKE", "_SIZE", "_LEAVES", "_ENTRIES", "_HEAD"])
async def test_a_crash_at_any_statement_leaves_all_or_nothing(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    request = uuid4()
    await noted(platform, (request, 0), (request, 1), (request, 2))
    await place(platform)
    await noted(platform, (request, 3), (request, 4))
    statement = getattr(placing, line)

    async def dying(session: Any, query: str, *arguments: object) -> Any:
        found = await fetch(session, query, *arguments)
        if query == statement:
            raise ConnectionResetError
        return found

    with monkeypatch.context() as patch:
        patch.setattr(placing, "fetch", dying)
        with pytest.raises(Unavailable):
            await place(platform)
    assert len(await entries(platform)) == 3
    await place(platform)
    assert await rounds(platform) == {str(request): [0, 1, 2, 3, 4]}


async def test_a_large_backlog_is_placed_in_batches_under_one_tree(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placing, "_AT_ONCE", 7)
    request = uuid4()
    await noted(platform, *((request, number) for number in range(50)))
    while await placing.place(platform.work):
        pass
    await place(platform)
    assert await rounds(platform) == {str(request): list(range(50))}
    lines = [json.loads(one) for one in await log_of(platform)]
    assert [Head.read(one["head"], keys_of(platform)).size for one in lines if "head" in one] == [
        7, 14, 21, 28, 35, 42, 49, 50,
    ]  # fmt: skip


def keys_of(platform: Platform) -> Keys:
    return Keys([key_of(platform.work.settings).as_dict(private=False)])


async def test_a_log_that_cannot_grow_holds_no_other_up(
    platform: Platform, hostile: Any, caplog: pytest.LogCaptureFixture
) -> None:
    broken, whole = sorted(
        (replace(platform, store_id=uuid4()) for _ in range(2)), key=lambda one: one.store_id
    )
    for one in (broken, whole):
        await noted(one, *((uuid4(), number) for number in range(3)))
    assert await placing.place(platform.work) == 0
    await hostile.execute("DELETE FROM evidence_leaf WHERE store_id = $1", broken.store_id)
    for one in (broken, whole):
        await noted(one, (uuid4(), 3))
    await placing.place(platform.work)
    assert log.audit(await log_of(whole), keys_of(whole)).entries == 4
    assert "the log of a store cannot grow" in caplog.text
    await hostile.execute("DELETE FROM evidence_pending WHERE store_id = $1", broken.store_id)


# --- Append-only in the database -------------------------------------------------------------------------

TABLES = [
    "evidence_leaf",
    "evidence_head",
    "certificate",
    "published_key",
    "evidence_entry",
    "evidence_pending",
]


@pytest.mark.parametrize("table", TABLES)
async def test_neither_the_application_nor_the_owner_changes_what_is_there(
    platform: Platform, privacy_environment: Mapping[str, str], table: str
) -> None:
    await certified(platform)
    await noted(platform, (uuid4(), 1))
    owner = Database(privacy_environment["PRIVACY_MIGRATION_DATABASE_URL"], pool_size=1)
    column = {"evidence_head": "root", "published_key": "kid", "certificate": "content"}.get(
        table, "store_id"
    )
    statements = [f"UPDATE {table} SET {column} = {column}", f"TRUNCATE {table}"]
    if table != "evidence_pending":
        statements.append(f"DELETE FROM {table}")
    for one in (platform.database, owner):
        for statement in statements:
            with pytest.raises(DBAPIError, match=r"append-only|permission denied|must be owner"):
                async with one.platform_session() as session:
                    await session.execute(text(statement))
    await owner.close()


async def test_old_entries_lose_what_they_say_and_keep_every_proof(platform: Platform, hostile: Any) -> None:
    await knows_the_store(platform)
    _, request_id, document = await certified(platform)
    later = datetime.now(UTC) + timedelta(days=6 * 366)
    with pytest.raises(DBAPIError, match="append-only"):
        # The database itself lets nothing go that is younger than a year, whatever the clock of a worker says.
        await ending.forget(replace(platform.work, clock=lambda: later))
    assert await entries(platform)
    await hostile.execute(
        "UPDATE evidence_entry SET at = at - interval '6 years' WHERE store_id = $1", platform.store_id
    )
    while await ending.forget(platform.work):
        pass
    lines = [json.loads(line) for line in await log_of(platform)]
    assert all(line["entry"] is None for line in lines if "index" in line)
    found = log.audit(await log_of(platform), keys_of(platform))
    assert found.gone == found.entries > 0
    leaf = document["certificate"]["entries"][0][1]
    proof = (await platform.client.get(f"{platform.path}/evidence/inclusion?leaf={leaf}")).json()
    head = Head.read(proof["head"], keys_of(platform))
    path = [bytes.fromhex(one) for one in proof["path"]]
    merkle.check_inclusion(bytes.fromhex(leaf), proof["index"], proof["size"], path, head.root)
    again = await platform.client.get(
        f"{platform.path}/requests/{request_id}/certificate", headers=platform.officer()
    )
    assert {one["entry"] for one in again.json()["evidence"]} == {None}
    assert again.json()["certificate"] == document["certificate"]


# --- Altered in every way --------------------------------------------------------------------------------


async def audited(platform: Platform, *seen: Head) -> log.Audit:
    return log.audit(await log_of(platform), keys_of(platform), seen)


async def head_of(platform: Platform) -> Head:
    await knows_the_store(platform)
    response = await platform.client.get(f"{platform.path}/evidence/head")
    return Head.read(response.json()["head"], keys_of(platform))


EDITS: Mapping[str, tuple[str, str]] = {
    "what an entry says": (
        "UPDATE evidence_entry SET content = overlay(content placing 'X' from 12) WHERE store_id = $1 AND index = 3",
        "changed",
    ),
    "an entry and its hash": (
        "WITH one AS (UPDATE evidence_entry SET content = overlay(content placing 'X' from 12)"
        " WHERE store_id = $1 AND index = 3 RETURNING content)"
        " UPDATE evidence_leaf SET hash = sha256('\\x00'::bytea || content) FROM one"
        " WHERE store_id = $1 AND index = 3",
        "another root",
    ),
    "an entry in the middle goes": (
        "WITH gone AS (DELETE FROM evidence_entry WHERE store_id = $1 AND index = 3)"
        " DELETE FROM evidence_leaf WHERE store_id = $1 AND index = 3",
        "missing",
    ),
    "the last entries go": ("DELETE FROM evidence_leaf WHERE store_id = $1 AND index > 9", "cut off"),
    "a hash is put where another was": (
        "UPDATE evidence_leaf SET hash = sha256('made up') WHERE store_id = $1 AND index = 2", "changed",
    ),
    "a head has another root": (
        "UPDATE evidence_head SET signature = replace(signature, '.', 'A.') WHERE store_id = $1", "not signed",
    ),
}  # fmt: skip


@pytest.mark.parametrize("edit", EDITS)
async def test_an_administrator_without_the_key_is_found_out_by_the_log_itself(
    platform: Platform, hostile: Any, edit: str
) -> None:
    await certified(platform)
    await audited(platform)
    statement, said = EDITS[edit]
    assert await hostile.execute(statement, platform.store_id) != "UPDATE 0"
    with pytest.raises(Altered, match=said):
        await audited(platform)


async def test_an_entry_that_was_altered_keeps_no_other_certificate_waiting(
    platform: Platform, hostile: Any
) -> None:
    (_, one), (_, other) = await erased(platform), await erased(platform)
    await place(platform)
    statement = (
        "UPDATE evidence_entry SET content = overlay(content placing 'X' from 12) WHERE request_id = $1"
    )
    await hostile.execute(statement, one)
    await issue(platform)
    assert (await fetched(platform, other))["certificate"]["number"] == 1
    path = f"{platform.path}/requests/{one}/certificate"
    assert (await platform.client.get(path, headers=platform.officer())).status_code == 404


async def test_two_entries_that_change_places_are_found_out(platform: Platform, hostile: Any) -> None:
    await certified(platform)
    for table in ("evidence_leaf", "evidence_entry"):
        for there, here in ((3, -1), (4, 3), (-1, 4)):
            await hostile.execute(
                f"UPDATE {table} SET index = $3 WHERE store_id = $1 AND index = $2",
                platform.store_id,
                there,
                here,
            )
    with pytest.raises(Altered, match="another root"):
        await audited(platform)


async def test_an_entry_of_another_store_is_found_out(platform: Platform, hostile: Any) -> None:
    await certified(platform)
    other = replace(platform, store_id=uuid4())
    await noted(other, (uuid4(), 1), (uuid4(), 2))
    await place(other)
    content, hash_ = await hostile.fetchrow(
        "SELECT content, hash FROM evidence_entry JOIN evidence_leaf USING (store_id, index) WHERE store_id = $1",
        other.store_id,
    )
    await hostile.execute(
        "UPDATE evidence_entry SET content = $2 WHERE store_id = $1 AND index = 3", platform.store_id, content
    )
    with pytest.raises(Altered, match="changed"):
        await audited(platform)
    await hostile.execute(
        "UPDATE evidence_leaf SET hash = $2 WHERE store_id = $1 AND index = 3", platform.store_id, hash_
    )
    with pytest.raises(Altered, match="another store"):
        await audited(platform)


class Forger:
    """An administrator who has the key, and signs a log anew after changing it."""

    def __init__(self, lines: list[bytes], key: ECKey) -> None:
        self.first, *said = [json.loads(line) for line in lines]
        self.entries = [one["entry"] for one in said if "entry" in one]
        self.sizes = [
            Head.read(one["head"], Keys([key.as_dict(private=False)])).size for one in said if "head" in one
        ]
        self.key = key

    def signed(self, at: datetime | None = None) -> list[bytes]:
        growing, lines, heads = Growing(), [self.first], list[Any]()
        for entry in self.entries:
            hash_ = merkle.leaf_hash(signing.canonical(entry))
            lines.append({"index": growing.size, "hash": hash_.hex(), "entry": entry})
            growing.append(hash_)
            if growing.size in self.sizes or growing.size == len(self.entries):
                head = Head(self.first["log"], growing.size, growing.root, at or datetime.now(UTC))
                heads.append({"head": head.sign(self.key)})
        return [json.dumps(line).encode() for line in lines + heads]


def edit(forger: Forger) -> None:
    forger.entries[3]["facts"]["participants"] = []


def delete(forger: Forger) -> None:
    del forger.entries[3]


def insert(forger: Forger) -> None:
    forger.entries.insert(3, {**forger.entries[3], "id": str(uuid4())})


def reorder(forger: Forger) -> None:
    forger.entries[3], forger.entries[4] = forger.entries[4], forger.entries[3]


def truncate(forger: Forger) -> None:
    del forger.entries[-3:]


def roll_back(forger: Forger) -> None:
    del forger.entries[forger.sizes[0] :]


def replace_whole(forger: Forger) -> None:
    forger.entries = forger.entries[:1]


@pytest.mark.parametrize("forge", [edit, delete, insert, reorder, truncate, roll_back, replace_whole])
async def test_an_administrator_with_the_key_is_found_out_by_any_head_that_got_out(
    platform: Platform, forge: Callable[[Forger], None]
) -> None:
    _, _, document = await certified(platform)
    newest, certificate = (
        await head_of(platform),
        Head.read(document["certificate"]["head"], keys_of(platform)),
    )
    assert newest.size > certificate.size
    lines = await log_of(platform)
    assert log.audit(lines, keys_of(platform), [newest, certificate]).seen == 2
    forger = Forger(lines, key_of(platform.work.settings))
    forge(forger)
    forged = forger.signed()
    log.audit(forged, keys_of(platform))
    with pytest.raises(Altered, match="A head that was kept"):
        log.audit(forged, keys_of(platform), [newest])


async def test_a_fork_is_two_heads_of_one_size_and_no_proof_joins_them(platform: Platform) -> None:
    await certified(platform)
    shown_to_one = await head_of(platform)
    forger = Forger(await log_of(platform), key_of(platform.work.settings))
    edit(forger)
    shown_to_another = log.audit(forger.signed(), keys_of(platform))
    assert shown_to_another.roots[shown_to_one.size] != shown_to_one.root
    with pytest.raises(merkle.NotProven):
        merkle.check_consistency(
            shown_to_one.size, shown_to_one.root, shown_to_one.size,
            shown_to_another.roots[shown_to_one.size], [],
        )  # fmt: skip
    line = json.dumps({"head": Head(shown_to_one.log, shown_to_one.size, shown_to_another.roots[shown_to_one.size],
                                    shown_to_one.at).sign(forger.key)}).encode()  # fmt: skip
    with pytest.raises(Altered, match="forked"):
        log.audit([*(await log_of(platform)), line], keys_of(platform))


async def test_a_log_signed_anew_by_another_key_is_found_out(platform: Platform) -> None:
    await certified(platform)
    forger = Forger(await log_of(platform), key_of(platform.work.settings))
    forger.key = ECKey.generate_key("P-256", auto_kid=True)
    with pytest.raises(Altered, match="not signed by a key that is trusted"):
        log.audit(forger.signed(), keys_of(platform))


# --- What anybody may ask --------------------------------------------------------------------------------


async def test_anybody_proves_inclusion_and_consistency_between_published_heads(platform: Platform) -> None:
    await knows_the_store(platform)
    older: list[Head] = []
    leaves: list[str] = []
    for number in range(9):
        await noted(platform, *((uuid4(), one) for one in range(number + 1)))
        await place(platform)
        older.append(await head_of(platform))
    newest = older[-1]
    for first in range(0, newest.size, 20):
        said = (await platform.client.get(f"{platform.path}/evidence/leaves?first={first}&limit=20")).json()
        leaves += said["items"]
    assert len(leaves) == newest.size == 45
    growing = Growing()
    for one in leaves:
        growing.append(bytes.fromhex(one))
    assert growing.root == newest.root
    for one in older:
        path = f"{platform.path}/evidence/consistency?first={one.size}&second={newest.size}"
        proof = [bytes.fromhex(step) for step in (await platform.client.get(path)).json()["path"]]
        merkle.check_consistency(one.size, one.root, newest.size, newest.root, proof)
    for index in (0, 7, 20, 44):
        answer = await platform.client.get(f"{platform.path}/evidence/inclusion?leaf={leaves[index]}")
        said = answer.json()
        merkle.check_inclusion(
            bytes.fromhex(leaves[index]), index, said["size"], [bytes.fromhex(one) for one in said["path"]],
            newest.root,
        )  # fmt: skip
    listed = (await platform.client.get(f"{platform.path}/evidence/heads?limit=3")).json()["items"]
    assert [one["size"] for one in listed] == [45, 36, 28]
    below = (await platform.client.get(f"{platform.path}/evidence/heads?below=28&limit=1")).json()["items"]
    assert [one["size"] for one in below] == [21]


async def test_a_log_without_entries_has_a_root_and_no_head(platform: Platform) -> None:
    await knows_the_store(platform)
    head = (await platform.client.get(f"{platform.path}/evidence/head")).json()
    assert head == {"size": 0, "root": merkle.EMPTY.hex(), "signed_at": None, "head": None}
    assert (await platform.client.get(f"{platform.path}/evidence/leaves")).json()["items"] == []
    lines = await log_of(platform)
    assert log.audit(lines, keys_of(platform)).entries == 0


async def test_what_a_log_has_not_is_said_in_words(platform: Platform) -> None:
    await knows_the_store(platform)
    other = replace(platform, store_id=uuid4())
    await knows_the_store(other)
    await noted(other, (uuid4(), 1))
    await place(other)
    leaf = (await platform.client.get(f"{other.path}/evidence/leaves")).json()["items"][0]
    await noted(platform, (uuid4(), 1), (uuid4(), 2))
    await place(platform)
    for query, status, slug in (
        (f"inclusion?leaf={leaf}", 404, "not-in-log"),
        (f"inclusion?leaf={leaf}&size=1", 404, "not-in-log"),
        ("inclusion?leaf=zz", 422, "invalid"),
        ("consistency?first=1&second=2", 404, "not-in-log"),
        ("consistency?first=2&second=0", 422, "sizes-do-not-fit"),
        ("consistency?first=-1&second=2", 422, "invalid"),
        (f"consistency?first=2&second={2**64}", 422, "invalid"),
    ):
        answer = await platform.client.get(f"{platform.path}/evidence/{query}")
        assert (answer.status_code, answer.json()["type"]) == (status, f"/problems/{slug}"), query
    nowhere = await platform.client.get(f"/privacy/v1/stores/{uuid4()}/evidence/head")
    assert nowhere.status_code == 404


async def test_a_log_that_was_cut_short_proves_nothing_and_says_so(platform: Platform, hostile: Any) -> None:
    await knows_the_store(platform)
    await noted(platform, (uuid4(), 1), (uuid4(), 2))
    await place(platform)
    [leaf, _] = (await platform.client.get(f"{platform.path}/evidence/leaves")).json()["items"]
    await hostile.execute("DELETE FROM evidence_leaf WHERE store_id = $1 AND index = 1", platform.store_id)
    answer = await platform.client.get(f"{platform.path}/evidence/inclusion?leaf={leaf}")
    assert (answer.status_code, answer.json()["type"]) == (410, "/problems/log-cut-short")
    head = (await platform.client.get(f"{platform.path}/evidence/head")).json()
    assert head["size"] == 2


async def test_who_asks_too_often_waits(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    await knows_the_store(platform)
    settings = platform.app.state.settings
    bounded = settings.model_copy(update={"proofs_per_address": 3})
    monkeypatch.setitem(vars(platform.app.state)["_state"], "settings", bounded)
    answers = [await platform.client.get(f"{platform.path}/evidence/head") for _ in range(5)]
    assert [one.status_code for one in answers] == [200, 200, 200, 429, 429]
    assert int(answers[-1].headers["Retry-After"]) > 0


async def test_keys_that_signed_before_stay_published(platform: Platform) -> None:
    before = key_of(platform.work.settings)
    await noted(platform, (uuid4(), 1))
    await place(platform)
    signed = await log_of(platform)
    after = ECKey.generate_key("P-256", auto_kid=True)
    await noted(platform, (uuid4(), 2))
    await placing.place_in(platform.work, platform.store_id, after)
    published = (await platform.client.get("/privacy/v1/keys.json")).json()["keys"]
    assert published[0]["kid"] == before.kid
    assert {one["kid"] for one in published} >= {before.kid, after.kid}
    assert all("d" not in one for one in published)
    log.audit(signed, Keys(published))
    assert log.audit(await log_of(platform), Keys(published)).heads == 2


async def test_the_whole_log_is_for_the_stores_officers(platform: Platform) -> None:
    person, _ = await erased(platform)
    path = f"{platform.path}/evidence/log"
    assert (await platform.client.get(path)).status_code == 401
    assert (await platform.client.get(path, headers=person.token())).status_code == 403
    assert (await platform.client.get(path, headers=platform.officer(store=str(uuid4())))).status_code == 404
