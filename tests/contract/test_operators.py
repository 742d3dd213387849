"""`vitrine login`, `requests` and `participants`, typed by officers on a platform of real services."""

import asyncio
import json
import os
import re
import signal
import stat
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from deploy.local.environment import SERVICES
from deploy.local.ports import free_port
from libs.common.auth import PLATFORM_STORE, Role
from services.identity.appoint import appoint
from services.privacy.models import Participant
from tests.contract.house import PASSWORD, Furnished, House, Person
from tests.tokens import authorization
from vitrine.operating import DONE, NOT_SIGNED_IN, REFUSED, UNREACHABLE, USAGE

ROOT = Path(__file__).parents[2]
_WITHIN = 60  # seconds


@dataclass(frozen=True)
class Typed:
    """What a command came to."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True)
class Terminal:
    """Somebody's shell: where their state lies, and what their environment says."""

    state: Path
    environment: Mapping[str, str]

    async def started(self, *words: str, **changes: str) -> asyncio.subprocess.Process:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("VITRINE_")}
        environment |= {"XDG_STATE_HOME": str(self.state), "TZ": "Europe/Paris", "PYTHONPATH": str(ROOT)}
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "vitrine", *words),
            cwd=self.state,
            env={**environment, **self.environment, **changes},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def types(self, *words: str, given: str = "", **changes: str) -> Typed:
        process = await self.started(*words, **changes)
        out, err = await asyncio.wait_for(process.communicate(given.encode()), _WITHIN)
        assert process.returncode is not None
        assert "Traceback" not in err.decode()
        return Typed(process.returncode, out.decode(), err.decode())

    async def logs_in(self, email: str, *words: str, password: str = PASSWORD) -> Typed:
        return await self.types("login", "--email", email, "--password-stdin", *words, given=f"{password}\n")

    @property
    def session(self) -> Path:
        return self.state / "vitrine" / "session.json"


@pytest.fixture
def terminal(address: str, tmp_path: Path) -> Terminal:
    return Terminal(tmp_path, {"VITRINE_URL": address})


@pytest.fixture(scope="session")
async def officer(house: House) -> AsyncIterator[Person]:
    """A privacy officer of the platform, appointed as an operator does."""
    person = await house.person(PLATFORM_STORE, f"canary-{uuid4().hex[:12]}@vitrine.example")
    assert await appoint(house.apps["identity"].state.parts.settings, person.email)
    yield person


@pytest.fixture
async def of_platform(terminal: Terminal, officer: Person) -> Terminal:
    signed_in = await terminal.logs_in(officer.email)
    assert signed_in.code == DONE, signed_in.err
    return terminal


@pytest.fixture
def of_store(address: str, ours: Furnished, tmp_path: Path) -> Terminal:
    """Somebody who was given a token of a store's officer."""
    token = authorization(ours.id, Role.PRIVACY_OFFICER)["Authorization"].removeprefix("Bearer ")
    return Terminal(tmp_path, {"VITRINE_URL": address, "VITRINE_TOKEN": token})


# --- Signing in ------------------------------------------------------------------------------------------


async def test_an_officer_signs_in_and_the_token_is_theirs_alone(
    terminal: Terminal, officer: Person, address: str
) -> None:
    signed_in = await terminal.logs_in(officer.email)
    assert (signed_in.code, signed_in.err) == (DONE, "")
    assert "for the platform" in signed_in.out
    assert stat.S_IMODE(terminal.session.stat().st_mode) == 0o600
    assert stat.S_IMODE(terminal.session.parent.stat().st_mode) == 0o700
    kept = terminal.session.read_text()
    assert PASSWORD not in kept and officer.email not in kept
    assert PASSWORD not in signed_in.out
    # The address is kept with it.
    listed = await terminal.types("requests", "list", VITRINE_URL="")
    assert listed.code == DONE, listed.err


async def test_a_merchant_signs_in_for_their_store_and_not_for_the_platform(
    terminal: Terminal, merchant: Person, ours: Furnished
) -> None:
    refused = await terminal.logs_in(merchant.email)
    assert refused.code == NOT_SIGNED_IN
    assert "does not work for the platform" in refused.err
    assert not terminal.session.exists()
    foreign = await terminal.logs_in(merchant.email, "--store", str(uuid4()))
    assert foreign.code == NOT_SIGNED_IN
    assert (await terminal.logs_in(merchant.email, "--store", str(ours.id))).code == DONE
    listed = await terminal.types("requests", "list", "--json")
    assert listed.code == DONE, listed.err
    assert {one["store_id"] for one in listed.json["items"]} == {str(ours.id)}


async def test_another_password_is_refused_without_a_word_about_it(
    terminal: Terminal, officer: Person
) -> None:
    refused = await terminal.logs_in(officer.email, password="not the password of anybody")
    assert (refused.code, refused.out) == (NOT_SIGNED_IN, "")
    assert refused.err == "vitrine: This e-mail and this password do not open an account of the platform.\n"
    assert (await terminal.types("login", given="")).code == USAGE


async def test_a_password_never_leaves_this_machine_in_the_clear(terminal: Terminal, officer: Person) -> None:
    refused = await terminal.logs_in(officer.email, "--url", "http://shop.vitrine.example")
    assert refused.code == NOT_SIGNED_IN
    assert "https://" in refused.err


async def test_a_token_is_exchanged_when_its_time_is_over_and_by_one_of_two_commands(
    of_platform: Terminal,
) -> None:
    before = json.loads(of_platform.session.read_text())
    of_platform.session.write_text(json.dumps(before | {"expires_at": 0}))
    both = await asyncio.gather(*(of_platform.types("requests", "list") for _ in range(2)))
    assert [typed.code for typed in both] == [DONE, DONE], both
    after = json.loads(of_platform.session.read_text())
    assert after["refresh_token"] != before["refresh_token"]
    assert after["expires_at"] > 0
    assert stat.S_IMODE(of_platform.session.stat().st_mode) == 0o600


async def test_a_token_that_is_believed_no_more_is_exchanged_once(of_platform: Terminal) -> None:
    before = json.loads(of_platform.session.read_text())
    head, payload, _ = before["access_token"].split(".")
    of_platform.session.write_text(json.dumps(before | {"access_token": f"{head}.{payload}.AAAA"}))
    assert (await of_platform.types("requests", "list")).code == DONE


async def test_signing_out_ends_the_session_at_the_platform_too(of_platform: Terminal) -> None:
    kept = of_platform.session.read_text()
    assert (await of_platform.types("logout")).out == "Signed out.\n"
    assert not of_platform.session.exists()
    assert (await of_platform.types("logout")).out == "Nobody was signed in.\n"
    of_platform.session.write_text(json.dumps(json.loads(kept) | {"expires_at": 0}))
    of_platform.session.chmod(0o600)
    ended = await of_platform.types("requests", "list")
    assert ended.code == NOT_SIGNED_IN
    assert "has ended" in ended.err


async def test_a_token_that_others_may_read_is_not_used(of_platform: Terminal) -> None:
    of_platform.session.chmod(0o644)
    refused = await of_platform.types("requests", "list")
    assert refused.code == NOT_SIGNED_IN
    assert "Others may read" in refused.err


async def test_a_token_is_not_sent_to_another_platform(of_platform: Terminal) -> None:
    refused = await of_platform.types("requests", "list", "--url", f"http://127.0.0.1:{free_port()}")
    assert refused.code == NOT_SIGNED_IN
    assert "You are signed in at" in refused.err


async def test_an_officer_who_is_dismissed_is_none_after_the_next_exchange(
    terminal: Terminal, house: House
) -> None:
    settings = house.apps["identity"].state.parts.settings
    person = await house.person(PLATFORM_STORE, f"canary-{uuid4().hex[:12]}@vitrine.example")
    assert (await terminal.logs_in(person.email)).code == NOT_SIGNED_IN
    assert await appoint(settings, person.email)
    assert (await terminal.logs_in(person.email)).code == DONE
    assert await appoint(settings, person.email, dismiss=True)
    kept = json.loads(terminal.session.read_text())
    terminal.session.write_text(json.dumps(kept | {"expires_at": 0}))
    assert (await terminal.types("requests", "list")).code == NOT_SIGNED_IN
    assert not await appoint(settings, "canary-nobody@vitrine.example")


# --- Looking ---------------------------------------------------------------------------------------------


async def opened(house: House, store: Furnished, right: str) -> str:
    """A request of a new customer, which nobody has answered yet."""
    person = await house.person(store.id, f"canary-{uuid4().hex[:12]}@vitrine.example")
    body = {"right": right, "email": person.email}
    path = f"/privacy/v1/stores/{store.id}/requests"
    return (await house.call("POST", path, json=body, headers=person.headers, expect=201))["id"]


async def test_the_platform_sees_whom_requests_of_all_stores_wait_for(
    of_platform: Terminal, house: House, ours: Furnished, theirs: Furnished
) -> None:
    mine, yours = await opened(house, ours, "access"), await opened(house, theirs, "access")
    # Other tests have left requests open that were there before.
    waiting = ("--right", "access", "--waiting-for", "billing", "--limit", "10000")
    listed = await of_platform.types("requests", "list", *waiting)
    assert listed.code == DONE, listed.err
    assert listed.out.startswith("REQUEST")
    for request_id in (mine, yours):
        [line] = [line for line in listed.out.splitlines() if line.startswith(request_id)]
        assert re.search(r"access +running +\d\d:\d\d +\d{4}-\d\d-\d\d +billing, .* since \d\d:\d\d$", line)
    assert "canary" not in listed.out
    one_store = await of_platform.types("requests", "list", "--store", str(theirs.id), "--json")
    assert {one["store_id"] for one in one_store.json["items"]} == {str(theirs.id)}
    nobody = await of_platform.types("requests", "list", "--waiting-for", "nobody")
    assert (nobody.code, nobody.out) == (DONE, "No request is like this.\n")


async def test_one_request_is_explained_with_what_would_end_it(
    of_platform: Terminal, house: House, ours: Furnished
) -> None:
    request_id = await opened(house, ours, "access")
    shown = await of_platform.types("requests", "show", request_id)
    assert shown.code == DONE, shown.err
    assert re.search(
        r"waiting for billing \(export\) since \d\d:\d\d, try 1, next try (now|\d\d:\d\d)", shown.out
    )
    assert re.search(r"its last day is \d{4}-\d\d-\d\d, \d+ days", shown.out)
    data = (await of_platform.types("requests", "show", request_id, "--json")).json
    assert data["request_id"] == request_id
    # The store is in Paris, and so is the terminal.
    assert (data["zone"], data["waits_for"]) == ("Europe/Paris", "participants")


async def test_a_stores_officer_sees_their_own_requests_alone(
    of_store: Terminal, house: House, ours: Furnished, theirs: Furnished
) -> None:
    mine, yours = await opened(house, ours, "access"), await opened(house, theirs, "access")
    listed = await of_store.types("requests", "list", "--json")
    found = {one["request_id"] for one in listed.json["items"]}
    assert mine in found and yours not in found
    assert (await of_store.types("requests", "show", mine)).code == DONE
    refused = await of_store.types("requests", "show", yours)
    assert (refused.code, refused.out) == (REFUSED, "")
    assert refused.err.startswith("vitrine: Not found, or not yours to see.")


async def test_a_list_says_that_there_is_more(of_platform: Terminal, house: House, ours: Furnished) -> None:
    for _ in range(2):
        await opened(house, ours, "access")
    first = await of_platform.types("requests", "list", "--limit", "1")
    assert first.out.splitlines()[-1] == "… and more: only the first 1 are shown (--limit)."
    everything = await of_platform.types("requests", "list", "--limit", "1000", "--json")
    assert everything.json["more"] is False
    assert len(everything.json["items"]) >= 2


async def test_a_list_can_be_watched_until_somebody_has_seen_enough(of_platform: Terminal) -> None:
    process = await of_platform.started("requests", "list", "--watch", "1", "--json")
    assert process.stdout is not None
    rounds = [json.loads(await asyncio.wait_for(process.stdout.readline(), _WITHIN)) for _ in range(2)]
    process.send_signal(signal.SIGINT)
    await asyncio.wait_for(process.communicate(), _WITHIN)
    assert process.returncode == DONE
    assert all("items" in one for one in rounds)


async def test_participants_are_listed_with_what_they_have_to_answer(
    of_platform: Terminal, house: House, ours: Furnished
) -> None:
    await opened(house, ours, "access")
    listed = await of_platform.types("participants", "list")
    assert listed.code == DONE, listed.err
    assert re.search(r"^billing +.*; \d+ to answer$", listed.out, re.MULTILINE)


# --- Driving ---------------------------------------------------------------------------------------------


async def parts_of(terminal: Terminal, request_id: str) -> dict[str, Any]:
    """Those of an export: where somebody outside has a part, everybody is asked to refer too."""
    data = (await terminal.types("requests", "show", request_id, "--json")).json
    return {part["participant"]: part for part in data["parts"] if part["task"] == "export"}


async def test_what_is_waited_for_is_asked_again_at_once(
    of_platform: Terminal, house: House, ours: Furnished
) -> None:
    request_id = await opened(house, ours, "access")
    export = ("requests", "drive", request_id, "--verb", "export")
    driven = await of_platform.types(*export, "--participant", "billing")
    assert (driven.code, driven.out) == (DONE, "billing (export) is asked again.\n"), driven.err
    parts = await parts_of(of_platform, request_id)
    assert parts["billing"]["next_try_at"] < parts["orders"]["next_try_at"]
    # Who is told outside is not asked before everybody here has said by what the person is known there.
    asked = {name for name, part in parts.items() if "drive" in part["ended_by"]}
    everybody = await of_platform.types(*export)
    assert {line.partition(" ")[0] for line in everybody.out.splitlines()} == asked >= set(SERVICES)
    nobody = await of_platform.types("requests", "drive", request_id, "--verb", "erase")
    assert (nobody.code, nobody.out) == (REFUSED, "")
    assert "nothing of this request can be asked again now" in nobody.err


async def test_a_participant_is_answered_for_by_the_platform_and_by_no_store(
    of_platform: Terminal, of_store: Terminal, house: House, ours: Furnished
) -> None:
    request_id = await opened(house, ours, "access")
    words = ("requests", "settle", request_id, "--participant", "billing", "--verb", "export", "--outcome")
    reason = ("--ground", "destroyed", "--reason", "Its database was lost; see incident 7.")
    refused = await of_store.types(*words, "done", *reason)
    assert (refused.code, refused.out) == (REFUSED, "")
    assert "billing" in await parts_of(of_platform, request_id)
    not_fitting = await of_platform.types(*words, "retained", *reason)
    assert not_fitting.code == REFUSED
    settled = await of_platform.types(*words, "done", *reason)
    assert settled.code == DONE, settled.err
    assert settled.out == "billing (export) is answered for; your name and reason are on record.\n"
    assert "billing" not in await parts_of(of_platform, request_id)
    again = await of_platform.types(*words, "done", *reason)
    assert again.code == REFUSED
    assert "It is not as it was any more" in again.err


async def test_a_participant_leaves_by_a_command_that_says_who_has_its_data(
    of_platform: Terminal, of_store: Terminal, house: House
) -> None:
    name = f"sixth-{uuid4().hex[:8]}"
    async with house.database("privacy").platform_session() as session:
        session.add(Participant(name=name, public_key={}, data_map=[], announced_at=datetime.now(UTC)))
    for words in (
        (name, "--successor", "nobody-here"),
        ("billing", "--ground", "erased"),
        ("x", "--ground", "erased"),
    ):
        refused = await of_platform.types("participants", "leave", *words)
        assert (refused.code, refused.out) == (REFUSED, ""), words
    assert (await of_store.types("participants", "leave", name, "--ground", "erased")).code == REFUSED
    left = await of_platform.types("participants", "leave", name, "--ground", "never-held")
    assert left.out == f"{name} has left. Parts of requests still to be handed over: 0.\n", left.err
    listed = await of_platform.types("participants", "list")
    assert re.search(rf"^{name} left \d\d:\d\d: never-held$", listed.out, re.MULTILINE)


# --- What goes wrong -------------------------------------------------------------------------------------


async def test_nobody_is_signed_in(terminal: Terminal) -> None:
    for words in (("requests", "list"), ("requests", "show", str(uuid4())), ("participants", "list")):
        refused = await terminal.types(*words)
        assert (refused.code, refused.out) == (NOT_SIGNED_IN, "")
        assert "vitrine login" in refused.err
    for token in ("x", "a.b.c", "e30.e30.e30"):
        assert (await terminal.types("requests", "list", VITRINE_TOKEN=token)).code == NOT_SIGNED_IN


async def test_a_platform_that_is_not_there_is_said_to_be_so(of_store: Terminal) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    refused = await of_store.types("requests", "list", VITRINE_URL=nowhere)
    assert (refused.code, refused.out) == (UNREACHABLE, "")
    assert refused.err == f"vitrine: {nowhere} does not answer (ConnectError).\n"


async def test_whoever_is_no_officer_is_told(terminal: Terminal, ours: Furnished) -> None:
    token = authorization(ours.id, Role.SUPPORT)["Authorization"].removeprefix("Bearer ")
    refused = await terminal.types("requests", "list", VITRINE_TOKEN=token)
    assert refused.code == REFUSED
    assert refused.err.startswith("vitrine: Not permitted: only an owner or a privacy officer may do this.")


@pytest.mark.parametrize("typed", ["nothing", "../../../identity/v1/stores", "%00"])
async def test_an_id_that_is_none_is_refused(of_platform: Terminal, typed: str) -> None:
    refused = await of_platform.types("requests", "show", typed)
    assert (refused.code, refused.out) == (REFUSED, "")


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("requests",),
        ("requests", "list", "--state", "lost"),
        ("requests", "list", "--limit", "0"),
        ("requests", "list", "--watch", "0"),
        ("requests", "settle", "x"),
        ("participants", "leave", "billing"),
        ("participants", "leave", "billing", "--successor", "x", "--ground", "erased"),
    ],
)
async def test_a_command_that_is_not_understood_says_how_it_is_typed(
    terminal: Terminal, words: tuple[str, ...]
) -> None:
    refused = await terminal.types(*words)
    assert (refused.code, refused.out) == (USAGE, "")
    assert refused.err.startswith("usage: vitrine")


@pytest.mark.parametrize(
    "words", [(), ("login",), ("requests",), ("requests", "settle"), ("participants", "leave")]
)
async def test_every_command_explains_itself(terminal: Terminal, words: tuple[str, ...]) -> None:
    helped = await terminal.types(*words, "--help")
    assert helped.code == DONE
    assert helped.out.startswith("usage: vitrine")


async def test_to_verify_takes_no_network_and_not_what_it_is_spoken_with() -> None:
    code = (
        "import sys, vitrine.__main__; sys.exit('httpx' in sys.modules or 'vitrine.platform' in sys.modules)"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, cwd=ROOT)
    assert await process.wait() == 0
