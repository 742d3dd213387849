"""Certificates: when they are issued, what they say, who gets them, and that nothing altered passes."""

import json
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from joserfc.jwk import ECKey

from libs.common.auth import Role
from libs.common.events.privacy import Outcome, Verb
from libs.common.personal.vault import KEY_SECONDS
from libs.common.personal.vocabulary import Purpose
from services.privacy.evidence import certificates
from services.privacy.evidence.placing import key_of
from services.privacy.models import Request
from tests.privacy.conftest import Person, Platform
from tests.privacy.evidence import (
    KEPT,
    certified,
    erased,
    fetched,
    issue,
    knows_the_store,
    log_of,
    place,
)
from vitrine import certificate, pdf, signing
from vitrine.__main__ import ALTERED, BY_ITS_OWN_KEY, GENUINE, UNREADABLE, main
from vitrine.certificate import Altered
from vitrine.signing import Keys

ROOT = Path(__file__).parents[2]


def keys_of(platform: Platform) -> Keys:
    return Keys([key_of(platform.work.settings).as_dict(private=False)])


# --- When ------------------------------------------------------------------------------------------------


async def test_none_is_issued_while_an_opened_key_may_be_in_some_memory(platform: Platform) -> None:
    person, request_id = await erased(platform)
    await place(platform)
    path = f"{platform.path}/requests/{request_id}/certificate"
    early = await platform.client.get(path, headers=platform.officer())
    due = datetime.fromisoformat(early.json()["due_at"])
    completed = datetime.fromisoformat((await platform.detail(person, request_id))["completed_at"])
    assert due == completed + timedelta(seconds=KEY_SECONDS)
    await certificates.issue(replace(platform.work, clock=lambda: due - timedelta(microseconds=1)))
    early = await platform.client.get(path, headers=platform.officer())
    assert (early.status_code, early.json()["type"]) == (404, "/problems/not-certified")
    detail = await platform.detail(person, request_id)
    assert detail["certificate"] == {
        "issued_at": None,
        "due_at": early.json()["due_at"].replace("+00:00", "Z"),
    }
    await issue(platform)
    said = (await fetched(platform, request_id))["certificate"]
    assert said["keys"]["forgotten_by"] <= said["issued_at"]


async def test_one_waits_for_its_place_in_the_log(platform: Platform) -> None:
    _, request_id = await erased(platform)
    later = replace(platform.work, clock=lambda: datetime.now(UTC) + timedelta(hours=1))
    assert await certificates.issue(later) == 0
    unplaced = await platform.client.get(
        f"{platform.path}/requests/{request_id}/certificate", headers=platform.officer()
    )
    assert unplaced.status_code == 404
    await issue(platform, after=timedelta(hours=2))
    assert (await fetched(platform, request_id))["certificate"]["number"] == 1
    await issue(platform, after=timedelta(hours=3))
    assert (await fetched(platform, request_id))["certificate"]["number"] == 1, "issued twice"


# --- What it says ----------------------------------------------------------------------------------------


async def test_it_says_who_did_what_what_is_kept_and_since_when_nothing_opens(platform: Platform) -> None:
    await knows_the_store(platform)
    person, request_id, document = await certified(platform, kept=True)
    said = document["certificate"]
    assert said["store"] == {"id": str(platform.store_id), "name": "Papeterie"}
    request = said["request"]
    assert (request["id"], request["right"], request["law"]) == (str(request_id), "erasure", "gdpr")
    assert (request["outcome"], request["ground"]) == ("completed", None)
    parts = {one["participant"]: one for one in said["participants"]}
    assert set(parts) == {"keyring", "privacy", "test-shop"}
    assert (parts["test-shop"]["outcome"], parts["test-shop"]["counts"]) == ("retained", {"shop_order": 2})
    assert parts["test-shop"]["checked"]["reread"] == ["shop_order"]
    assert parts["test-shop"]["checked"]["skipped"] == {"outbox": "names-nobody"}
    own = parts["privacy"]["checked"]
    assert {"request", "request_note", "verification_document"} <= set(own["reread"])
    assert own["skipped"]["erased_subject"] == "names-the-erased"
    assert own["skipped"]["doomed_key"] == "kept" and own["skipped"]["outbox"] == "names-nobody"
    kept = [one for one in said["kept"] if one["participant"] == "test-shop"]
    assert kept == [{"participant": "test-shop", **KEPT.model_dump(mode="json")}]
    destroyed = datetime.fromisoformat(said["keys"]["destroyed_at"])
    assert said["keys"]["backups_lapse_on"] == (destroyed + timedelta(days=7)).date().isoformat()
    everything = json.dumps(document)
    for personal in (person.email, str(person.subject_id)):
        assert personal not in everything
    assert certificate.check(document, keys_of(platform)).signed_answers == 4


async def test_what_a_re_read_lists_is_the_catalogue_of_the_real_database(platform: Platform) -> None:
    _, _, document = await certified(platform)
    own = next(one for one in document["certificate"]["participants"] if one["participant"] == "privacy")
    async with platform.database.platform_session() as session:
        connection = await session.connection()
        rows = await connection.exec_driver_sql(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'm')"
        )
        tables = {row[0] for row in rows}
    assert {*own["checked"]["reread"], *own["checked"]["skipped"]} == tables
    assert not {*own["checked"]["reread"]} & {*own["checked"]["skipped"]}


async def test_a_failure_on_the_way_and_another_round_are_named(platform: Platform) -> None:
    person = await platform.person()
    request_id = await platform.opened(person, "erasure")
    await platform.ask_keyring()
    await platform.deliver(platform.answer(request_id, Verb.ERASE, Outcome.FAILED, reason="busy"))
    await platform.deliver(platform.answer(request_id, Verb.ERASE, Outcome.DONE, counts={"purchase": 1}))
    await platform.answer_itself(request_id, Verb.ERASE)
    await platform.deliver(
        platform.answer(
            request_id, Verb.VERIFY_ERASED, Outcome.FAILED, reason="left-over", counts={"purchase": 1}
        )
    )
    await platform.ask_keyring()
    async with platform.database.platform_session() as session:
        await (await session.connection()).exec_driver_sql(
            "UPDATE task SET next_issue_at = now() WHERE participant = 'keyring' AND next_issue_at IS NOT NULL"
        )
    await platform.ask_keyring()
    await platform.answer_all(request_id, Verb.ERASE)
    await platform.ask_keyring()
    await platform.answer_all(request_id, Verb.VERIFY_ERASED, Outcome.DONE)
    assert await platform.state(person, request_id) == "completed"
    await issue(platform)
    document = await fetched(platform, request_id)
    shop = next(one for one in document["certificate"]["participants"] if one["participant"] == "test-shop")
    assert shop["failures"] == [
        {"task": "erase", "reason": "busy", "times": 1},
        {"task": "verify-erased", "reason": "left-over", "times": 1},
    ]
    # Of the second round, which says so and no more.
    assert (shop["outcome"], shop["counts"], shop["checked"]["reread"]) == ("nothing-held", {}, [])
    certificate.check(document, keys_of(platform))
    words = "\n".join(certificate.in_words(certificate.check(document, keys_of(platform))))
    assert "failed 1 times before: verify-erased left-over" in words and "re-read" in words


async def test_a_refusal_is_certified_with_its_ground_and_at_once(platform: Platform) -> None:
    await platform.decides(passing={"erasure": "officer"})
    request_id = await platform.opened(await platform.person(), "erasure")
    refusal = {"refuse": "excessive", "explanation": "Asked ten times this year."}
    assert (await platform.do(request_id, "decision", refusal)).status_code < 300
    await issue(platform, after=timedelta(seconds=1))
    document = await fetched(platform, request_id)
    request = document["certificate"]["request"]
    assert (request["outcome"], request["ground"]) == ("refused", "excessive")
    assert request["authority"] and document["certificate"]["keys"] is None
    assert document["certificate"]["participants"] == []
    certificate.check(document, keys_of(platform))
    assert "ten times" not in json.dumps(document)


async def test_other_rights_are_certified_without_keys(platform: Platform) -> None:
    person = await platform.person()
    request_id = await platform.opened(person, "restriction")
    await platform.ask_keyring()
    await platform.answer_all(request_id, Verb.RESTRICT, Outcome.DONE)
    assert await platform.state(person, request_id) == "completed"
    await issue(platform, after=timedelta(seconds=1))
    document = await fetched(platform, request_id)
    assert document["certificate"]["keys"] is None
    assert {one["participant"]: one["outcome"] for one in document["certificate"]["participants"]} == {
        "keyring": "done", "privacy": "done", "test-shop": "done",
    }  # fmt: skip
    certificate.check(document, keys_of(platform))


# --- What was kept has ended -----------------------------------------------------------------------------


async def test_when_what_was_kept_has_ended_another_certificate_completes_the_first(
    platform: Platform,
) -> None:
    person, request_id, first = await certified(platform, kept=True)
    await ends(platform, person)
    await issue(platform, after=timedelta(seconds=1))
    assert (await fetched(platform, request_id))["certificate"]["number"] == 1, "keys may be in memory still"
    await issue(platform)
    document = await fetched(platform, request_id)
    said = document["certificate"]
    assert (said["number"], said["completes"]["id"]) == (2, first["certificate"]["id"])
    assert [one.get("ended_on") for one in said["kept"] if one["kind"] == "OrderContact"] == ["2037-01-01"]
    assert document["before"][0]["certificate"] == first["certificate"]
    checked = certificate.check(document, keys_of(platform))
    assert len(checked.before) == 1
    assert "ended on 2037-01-01" in "\n".join(certificate.in_words(checked))
    await ends(platform, person)
    await issue(platform)
    assert (await fetched(platform, request_id))["certificate"]["number"] == 2, "said twice, certified twice"


async def ends(platform: Platform, person: Person, **changes: Any) -> None:
    values: dict[str, Any] = {
        "store_id": platform.store_id, "subject_id": person.subject_id, "generation": 1,
        "retention": "accounting", "bucket": "2026", "on": date(2037, 1, 1),
    }  # fmt: skip
    async with platform.database.session(platform.store_id) as session:
        await certificates.kept_has_ended(session, **values | changes)


@pytest.mark.parametrize("changes", [{"bucket": "2027"}, {"subject_id": uuid4()}, {"generation": 2}])
async def test_what_was_not_kept_completes_nothing(platform: Platform, changes: dict[str, Any]) -> None:
    person, request_id, _ = await certified(platform, kept=True)
    await ends(platform, person, **changes)
    await issue(platform)
    assert (await fetched(platform, request_id))["certificate"]["number"] == 1


async def test_what_ends_before_the_first_certificate_is_in_it(platform: Platform) -> None:
    person, request_id = await erased(platform, kept=True)
    await ends(platform, person)
    await issue(platform, after=timedelta(minutes=10))
    document = await fetched(platform, request_id)
    assert document["certificate"]["number"] == 1
    assert "2037-01-01" in {one.get("ended_on") for one in document["certificate"]["kept"]}
    certificate.check(document, keys_of(platform))


# --- Who gets it -----------------------------------------------------------------------------------------


async def test_its_person_the_stores_officers_and_nobody_else_get_it(platform: Platform) -> None:
    person, request_id, document = await certified(platform)
    for path in (f"{platform.path}/requests/{request_id}/certificate{end}" for end in ("", ".pdf")):
        for headers, status in (
            (person.token(), 200),
            (platform.officer(), 200),
            (platform.officer(role=Role.OWNER), 200),
            ({}, 401),
            (platform.officer(role=Role.SUPPORT), 403),
            ((await platform.person()).token(), 404),
            (platform.officer(store=str(uuid4())), 404),
            (platform.of_platform(), 404),
        ):
            answer = await platform.client.get(path, headers=headers)
            assert answer.status_code == status, (path, headers)
    found = await platform.client.get(
        f"{platform.path}/requests/{request_id}/certificate", headers=person.token()
    )
    assert found.json() == document


async def test_the_link_of_the_mail_leads_to_it_after_the_erasure_too(platform: Platform) -> None:
    person, request_id = await erased(platform)
    token = await token_of(platform, request_id)
    body = {"token": token}
    early = await platform.client.post("/privacy/v1/status/certificate", json=body)
    assert (early.status_code, early.json()["type"]) == (404, "/problems/not-certified")
    status = (await platform.client.post("/privacy/v1/status", json=body)).json()
    assert status["certificate"]["issued_at"] is None and status["certificate"]["due_at"]
    await issue(platform)
    document = await platform.client.post("/privacy/v1/status/certificate", json=body)
    assert document.headers["Cache-Control"] == "no-store"
    assert document.json() == await fetched(platform, request_id)
    status = (await platform.client.post("/privacy/v1/status", json=body)).json()
    assert status["certificate"]["issued_at"] and status["certificate"]["due_at"] is None
    assert status["log"]["size"] >= document.json()["certificate"]["log"]["size"]
    page = await platform.client.post("/privacy/v1/status/certificate.pdf", json=body | {"language": "fr"})
    assert (page.status_code, page.headers["content-type"]) == (200, "application/pdf")
    assert json.loads(pdf.certificate_in(page.content)) == document.json()
    for wrong in ({"token": "a" * 43}, {"token": "a" * 43, "language": "fr"}):
        end = ".pdf" if "language" in wrong else ""
        gone = await platform.client.post(f"/privacy/v1/status/certificate{end}", json=wrong)
        assert (gone.status_code, gone.json()["type"]) == (404, "/problems/request-link-not-valid")
    done = [
        body for template, _, body in await platform.waiting(person.subject_id) if template == "erasure-done"
    ]
    assert len(done) == 1 and "certificate" in done[0]


async def token_of(platform: Platform, request_id: Any) -> str:
    async with platform.database.session(platform.store_id) as session:
        row = await session.get_one(Request, request_id)
    assert row.contact is not None
    contact = await platform.work.vault.open(
        row.contact, store_id=row.store_id, subject_id=row.subject_id, purpose=Purpose.RIGHTS_OF_THE_PERSON
    )
    return contact.status_token


async def test_the_mail_carries_the_head_of_the_log(platform: Platform) -> None:
    person, request_id = await erased(platform)
    await place(platform)
    await issue(platform)
    [done] = [
        text for template, _, text in await platform.waiting(person.subject_id) if template == "erasure-done"
    ]
    head = (await fetched(platform, request_id))["certificate"]["log"]
    assert "Evidence log of the store:" in done
    size, root = done.split("Evidence log of the store: ")[1].split()[0::2][:2]
    assert int(size) <= head["size"] and len(root) == 64


# --- Checked offline -------------------------------------------------------------------------------------


class Files:
    """A certificate in both forms, and the published keys, as somebody has them on a disk."""

    def __init__(self, folder: Path, document: Any, page: bytes, keys: Any, lines: list[bytes]) -> None:
        self.document, self.folder = document, folder
        self.json = self.kept("certificate.json", json.dumps(document, ensure_ascii=False, indent=2).encode())
        self.pdf = self.kept("certificate.pdf", page)
        self.keys = self.kept("keys.json", json.dumps(keys).encode())
        self.log = self.kept("log.jsonl", b"\n".join(lines))

    def kept(self, name: str, content: bytes) -> str:
        path = self.folder / name
        path.write_bytes(content)
        return str(path)


@pytest.fixture
async def files(platform: Platform, tmp_path: Path) -> Files:
    await knows_the_store(platform)
    _, request_id, document = await certified(platform, kept=True)
    page = await platform.client.get(
        f"{platform.path}/requests/{request_id}/certificate.pdf?language=fr", headers=platform.officer()
    )
    keys = (await platform.client.get("/privacy/v1/keys.json")).json()
    return Files(tmp_path, document, page.content, keys, await log_of(platform))


def test_both_forms_are_genuine_by_the_published_key(
    files: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    for form in (files.json, files.pdf):
        assert main(["verify", form, "--key", files.keys]) == GENUINE
        said = capsys.readouterr().out
        assert "Right: erasure, under GDPR" in said and "WARNING" not in said
        assert "Kept by test-shop: 1 OrderContact, until 2036-12-31 (code de commerce, L123-22)" in said
        assert "not re-read (names-the-erased): erased_subject" in said
    assert main(["verify", files.json]) == BY_ITS_OWN_KEY
    assert "signed by the key it carries" in capsys.readouterr().out
    assert main(["verify", "--log", files.log, "--key", files.keys, "--head", files.pdf]) == GENUINE
    assert "1 heads that were kept elsewhere are still its past" in capsys.readouterr().out


def said_otherwise(document: Any, change: Callable[[Any], None]) -> Any:
    altered = deepcopy(document)
    change(altered)
    return altered


def first_entry(document: Any) -> Any:
    return next(one for one in document["evidence"] if one["entry"]["step"] == "answered")


CHANGES: dict[str, Callable[[Any], None]] = {
    "an outcome": lambda one: one["certificate"]["participants"][0].update(outcome="done"),
    "a day until which something is kept": lambda one: one["certificate"]["kept"][0].update(
        until="2027-01-01"
    ),
    "a table that was not re-read": lambda one: one["certificate"]["participants"][2]["checked"].update(
        skipped={}
    ),
    "an instant": lambda one: one["certificate"]["keys"].update(destroyed_at="2020-01-01T00:00:00+00:00"),
    "another request": lambda one: one["certificate"]["request"].update(id=str(uuid4())),
    "the head": lambda one: one["certificate"].update(head=one["certificate"]["head"][:-4] + "AAAA"),
    "an entry": lambda one: first_entry(one)["entry"]["facts"].update(outcome="done", counts={}),
    "the place of an entry": lambda one: first_entry(one).update(index=0),
    "a path": lambda one: first_entry(one)["path"].reverse(),
    "an entry less": lambda one: one["evidence"].pop(),
    "the signature": lambda one: one.update(signature=one["signature"][:-4] + "AAAA"),
    "a part less": lambda one: one.pop("evidence"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_an_altered_certificate_is_refused_with_what_does_not_match(
    files: Files, capsys: pytest.CaptureFixture[str], change: str
) -> None:
    altered = said_otherwise(files.document, CHANGES[change])
    for more in (["--key", files.keys], []):
        path = files.kept("altered.json", json.dumps(altered).encode())
        assert main(["verify", path, *more]) == ALTERED
        assert capsys.readouterr().out.startswith("REFUSED  ")


CLAIMS: dict[str, tuple[Callable[[Any], None], str]] = {
    "more was re-read": (
        lambda said: said["participants"][2]["checked"]["reread"].append("invoice"), "another re-read",
    ),
    "a skipped table is not named": (
        lambda said: said["participants"][2]["checked"].update(skipped={}), "another re-read",
    ),
    "less is kept": (lambda said: said.update(kept=[]), "keeps"),
    "another outcome": (lambda said: said["participants"][2].update(outcome="done"), "another answer"),
    "an earlier destruction": (
        lambda said: said["keys"].update(destroyed_at="2020-01-01T00:00:00+00:00"), "no destruction",
    ),
    "another end": (lambda said: said["request"].update(outcome="refused"), "another end"),
}  # fmt: skip


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_platform_that_claims_more_than_its_log_says_is_refused_although_it_signed(
    platform: Platform, files: Files, claim: str
) -> None:
    change, said = CLAIMS[claim]
    document = said_otherwise(files.document, lambda one: change(one["certificate"]))
    content = signing.canonical(document["certificate"])
    document["signature"] = signing.detached(
        content, typ=signing.CERTIFICATE, key=key_of(platform.work.settings)
    )
    with pytest.raises(Altered, match=said):
        certificate.check(document, keys_of(platform))


def test_an_answer_that_its_participant_did_not_sign_is_refused(platform: Platform, files: Files) -> None:
    document = deepcopy(files.document)
    document["participants"]["test-shop"] = ECKey.generate_key("P-256").as_dict(private=False)
    with pytest.raises(Altered, match=r"test-shop.*not signed by it"):
        certificate.check(document, keys_of(platform))


def test_another_key_and_another_kind_of_signature_are_refused(
    platform: Platform, files: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    other = ECKey.generate_key("P-256", auto_kid=True).as_dict(private=False)
    path = files.kept("other.json", json.dumps(other).encode())
    for form in (["verify", files.json], ["verify", files.pdf], ["verify", "--log", files.log]):
        assert main([*form, "--key", path]) == ALTERED
    assert "another key" in capsys.readouterr().out
    document = deepcopy(files.document)
    content = signing.canonical(document["certificate"])
    document["signature"] = signing.detached(content, typ=signing.HEAD, key=key_of(platform.work.settings))
    with pytest.raises(Altered, match="not what was signed"):
        certificate.check(document, keys_of(platform))


def test_a_pdf_of_which_a_byte_was_changed_is_refused(
    files: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    content = Path(files.pdf).read_bytes()
    for at in (12, len(content) // 3, content.rfind(b"xref") + 1):
        altered = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
        assert main(["verify", files.kept("altered.pdf", altered), "--key", files.keys]) == ALTERED
    for altered in (content + b"\n% more", content[:-40], content.replace(b"EmbeddedFile", b"EmbeddedFyle")):
        assert main(["verify", files.kept("altered.pdf", altered), "--key", files.keys]) == ALTERED
    assert capsys.readouterr().out.count("REFUSED") == 6


def test_what_is_no_certificate_is_refused_or_not_read(
    files: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    for content in (
        b"",
        b"[]",
        b"{}",
        b"\xff\xfe",
        b"%PDF-1.7 nothing",
        b'{"certificate": 1, "keys": 3}',
        b"null",
    ):
        path = files.kept("nothing", content)
        assert main(["verify", path]) == ALTERED, content
        assert main(["verify", path, "--key", files.keys]) == ALTERED, content
        assert main(["verify", "--log", path, "--key", files.keys]) == ALTERED, content
    capsys.readouterr()
    assert main(["verify", str(files.folder / "none")]) == UNREADABLE
    assert main(["verify", files.json, "--key", files.log]) == UNREADABLE
    assert main(["verify", "--log", files.log, "--head", files.keys, "--key", files.keys]) == UNREADABLE
    assert "vitrine: " in capsys.readouterr().err


def test_it_runs_alone_as_a_module_from_a_copied_folder(files: Files, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "vitrine").symlink_to(ROOT / "vitrine")
    command = [sys.executable, "-m", "vitrine", "verify", files.pdf, "--key", files.keys]
    done = subprocess.run(command, cwd=alone, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == GENUINE, done.stderr
    assert "the PDF is, byte for byte, as it was made" in done.stdout
    told = subprocess.run(
        [*command[:4], "--help"], cwd=alone, capture_output=True, text=True, timeout=60, check=False
    )
    assert "exit codes:" in told.stdout and "keys.json" in told.stdout


# --- The page --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", ["en", "fr"])
async def test_the_page_is_a_pdf_a_3_that_carries_the_certificate(platform: Platform, language: str) -> None:
    await knows_the_store(platform)
    _, request_id, document = await certified(platform, kept=True)
    answer = await platform.client.get(
        f"{platform.path}/requests/{request_id}/certificate.pdf?language={language}",
        headers=platform.officer(),
    )
    assert f'filename="certificate-{request_id}.pdf"' in answer.headers["Content-Disposition"]
    content = answer.content
    assert json.loads(pdf.certificate_in(content)) == document
    pdf.check(content, keys_of(platform))
    assert b"<pdfaid:part>3</pdfaid:part>" in content and f"/Lang ({language})".encode() in content
    assert b"/AFRelationship /Source" in content
    unknown = await platform.client.get(
        f"{platform.path}/requests/{request_id}/certificate.pdf?language=tlh", headers=platform.officer()
    )
    assert unknown.status_code == 422


# --- Figures ---------------------------------------------------------------------------------------------


async def test_a_years_figures_come_from_the_log(platform: Platform) -> None:
    await knows_the_store(platform)
    headers = platform.officer()
    year = datetime.now(UTC).year
    empty = (await platform.client.get(f"{platform.path}/figures?year={year}", headers=headers)).json()
    assert (empty["year"], empty["requests"], empty["rights"]) == (year, 0, [])
    await erased(platform)
    await erased(platform)
    await platform.decides(passing={"erasure": "officer"})
    request_id = await platform.opened(await platform.person(), "erasure")
    refusal = {"refuse": "excessive", "explanation": "Again."}
    with platform.at(datetime.now(UTC) + timedelta(days=9)):
        assert (await platform.do(request_id, "decision", refusal)).status_code < 300
    await place(platform)
    found = (await platform.client.get(f"{platform.path}/figures?year={year}", headers=headers)).json()
    [erasure] = found["rights"]
    assert (erasure["right"], erasure["completed"], erasure["refused"]) == ("erasure", 2, 1)
    assert erasure["median_days"] < 0.01 and 8.9 < erasure["worst_days"] < 9.1 and erasure["late"] == 0
    assert found["requests"] == 3 and found["kept_from"] is None
    lines = await platform.client.get(f"{platform.path}/figures.csv?year={year}", headers=headers)
    assert lines.headers["content-type"].startswith("text/csv")
    header, line = lines.text.split()
    assert header.startswith("year,right,completed") and line.startswith(f"{year},erasure,2,1,0,0,")
    old = (await platform.client.get(f"{platform.path}/figures?year=2001", headers=headers)).json()
    assert old["rights"] == [] and old["kept_from"]
    present = (await platform.client.get(f"{platform.path}/figures", headers=headers)).json()
    assert "open" in present
    for path in (f"figures?year={year}", f"figures.csv?year={year}"):
        assert (await platform.client.get(f"{platform.path}/{path}")).status_code == 401
        support = platform.officer(role=Role.SUPPORT)
        assert (await platform.client.get(f"{platform.path}/{path}", headers=support)).status_code == 403
    assert (await platform.client.get(f"{platform.path}/figures?year=12", headers=headers)).status_code == 422
