"""The commands of whoever runs a platform, or answers for a store: `login`, `requests`, `participants`.

They speak to a platform over HTTP and need `httpx`, which is loaded when one of them runs: to verify a certificate
takes no network and no `httpx`.
"""

import argparse
import getpass
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from vitrine.telling import Telling

if TYPE_CHECKING:
    from vitrine.platform import Platform

DONE, REFUSED, USAGE, NOT_SIGNED_IN, UNREACHABLE = 0, 1, 2, 3, 4
CODES = """exit codes:
  0  done
  1  the platform refused: not found, not permitted, or it has changed meanwhile
  2  the command is not understood
  3  nobody is signed in, or the sign-in has ended
  4  the platform cannot be reached, or cannot answer now

environment:
  VITRINE_URL    where the platform is; else where `vitrine login` was, or http://127.0.0.1:8000
  VITRINE_TOKEN  an access token to use instead of a sign-in
"""
STATES = ("received", "verifying", "deciding", "running", "checking", "completed", "refused", "cancelled")
OUTCOMES = ("done", "nothing-held", "retained")
GROUNDS = ("done-by-hand", "holds-nothing", "destroyed", "kept-by-law", "unreachable")
LEAVING = ("never-held", "erased")
_DESCRIBED = argparse.RawDescriptionHelpFormatter

Given = argparse.Namespace


# --- What can be typed -----------------------------------------------------------------------------------


def add_commands(commands: Any) -> None:
    """Add them to a command line, each with the function that runs it."""
    _add_sign_in(commands)
    _add_requests(_group(commands, "requests", "list, explain and drive requests that wait"))
    _add_participants(_group(commands, "participants", "who answers requests, and who has left"))


def _group(commands: Any, name: str, about: str) -> Any:
    parser = commands.add_parser(
        name, help=about, description=f"{about.capitalize()}.", epilog=CODES, formatter_class=_DESCRIBED
    )
    return parser.add_subparsers(required=True, metavar="COMMAND")


def _command(
    commands: Any, name: str, about: str, run: Callable[[Given], int], *, reads: bool = False
) -> Any:
    parser = commands.add_parser(
        name, help=about, description=f"{about.capitalize()}.", epilog=CODES, formatter_class=_DESCRIBED
    )
    parser.add_argument("--url", help="where the platform is")
    if reads:
        parser.add_argument("--json", action="store_true", help="print what the platform answered")
    parser.set_defaults(run=run)
    return parser


def _add_sign_in(commands: Any) -> None:
    login = _command(commands, "login", "sign in as an officer of the platform, or of a store", _log_in)
    login.add_argument("--email", help="asked for when it is not given")
    login.add_argument(
        "--store", metavar="ID", help="act for this store; without it, for the platform as a whole"
    )
    login.add_argument(
        "--password-stdin", action="store_true", help="read the password from standard input, for scripts"
    )
    _command(commands, "logout", "end the sign-in", _log_out)


def _add_requests(commands: Any) -> None:
    listing = _command(commands, "list", "requests and whom each waits for", _list, reads=True)
    listing.add_argument("--state", choices=STATES)
    listing.add_argument("--right", help="access, erasure, rectification, …")
    listing.add_argument("--waiting-for", metavar="NAME", help="a participant or a recipient")
    listing.add_argument("--overdue", action="store_true", help="past the law's last day")
    listing.add_argument("--stuck", action="store_true", help="with a part that somebody should look at")
    listing.add_argument("--older", type=int, metavar="DAYS", help="opened so long ago, or longer")
    listing.add_argument("--store", metavar="ID", help="of this store alone")
    listing.add_argument("--ended", action="store_true", help="those that have ended instead")
    listing.add_argument("--limit", type=_positive, default=100, metavar="N", help="so many at most (100)")
    listing.add_argument(
        "--watch", type=_seconds, nargs="?", const=5.0, metavar="SECONDS",
        help="show it again and again, every five seconds, until Ctrl-C",
    )  # fmt: skip
    show = _command(commands, "show", "why a request has not ended, and what would end it", _show, reads=True)
    show.add_argument("id", metavar="ID")
    drive = _command(commands, "drive", "have what a request waits for asked again at once", _drive)
    drive.add_argument("id", metavar="ID")
    drive.add_argument("--participant", metavar="NAME", help="this one alone")
    drive.add_argument("--verb", help="this task alone")
    settle = _command(commands, "settle", "answer for a participant; the reason goes on record", _settle)
    settle.add_argument("id", metavar="ID")
    settle.add_argument("--participant", metavar="NAME", required=True)
    settle.add_argument("--verb", required=True, help="the task: erase, export, …")
    settle.add_argument("--outcome", choices=OUTCOMES, required=True)
    settle.add_argument("--ground", choices=GROUNDS, required=True)
    settle.add_argument("--reason", required=True, help="in words, for the record; name no person")


def _add_participants(commands: Any) -> None:
    _command(
        commands,
        "list",
        "who answers requests, and how much each has still to answer",
        _participants,
        reads=True,
    )
    leave = _command(commands, "leave", "nobody waits for a participant any more", _leave)
    leave.add_argument("name", metavar="NAME")
    why = leave.add_mutually_exclusive_group(required=True)
    why.add_argument("--successor", metavar="NAME", help="the participant that has its data now")
    why.add_argument("--ground", choices=LEAVING, help="why nobody has")


def _positive(written: str) -> int:
    number = int(written)
    if number < 1:
        raise argparse.ArgumentTypeError("one at least")
    return number


def _seconds(written: str) -> float:
    seconds = float(written)
    if seconds < 1:
        raise argparse.ArgumentTypeError("a second at least")
    return seconds


# --- Running one -----------------------------------------------------------------------------------------


def run(given: Given) -> int:
    """Runs a command, and says how it went."""
    try:
        from vitrine.platform import Refused, Unreachable
        from vitrine.session import NotSignedIn
    except ModuleNotFoundError as error:
        return _failed(f"this command needs {error.name}: pip install {error.name}", UNREACHABLE)
    codes = {NotSignedIn: NOT_SIGNED_IN, Refused: REFUSED, Unreachable: UNREACHABLE, EOFError: USAGE}
    try:
        return given.run(given)
    except tuple(codes) as error:
        return _failed(str(error) or "nothing was typed", codes[type(error)])
    except BrokenPipeError:
        # Whoever read has enough; what is left to write has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except KeyboardInterrupt:
        return DONE


def _failed(words: str, code: int) -> int:
    print(f"vitrine: {words}", file=sys.stderr)
    return code


def _platform(given: Given) -> "Platform":
    from vitrine.platform import Platform

    return Platform(given.url)


def _telling() -> Telling:
    return Telling(datetime.now().astimezone())


def _say(lines: Sequence[str]) -> None:
    print("\n".join(lines), flush=True)


# --- Signing in and out ----------------------------------------------------------------------------------


def _log_in(given: Given) -> int:
    from vitrine.platform import sign_in
    from vitrine.session import PLATFORM_STORE, path

    email = given.email or input("E-mail: ")
    password = sys.stdin.readline().rstrip("\n") if given.password_stdin else getpass.getpass("Password: ")
    signed_in = sign_in(given.url, email=email, password=password, store=given.store or PLATFORM_STORE)
    whose = f"store {given.store}" if given.store else "the platform"
    _say([f"Signed in at {signed_in.url} for {whose}. The token is in {path()}, for your eyes only."])
    return DONE


def _log_out(_: Given) -> int:
    from vitrine.platform import sign_out

    _say(["Signed out." if sign_out() else "Nobody was signed in."])
    return DONE


# --- Requests --------------------------------------------------------------------------------------------


def _list(given: Given) -> int:
    from vitrine.platform import Unreachable

    with _platform(given) as platform:
        if given.watch is None:
            _print_list(platform, given)
            return DONE
        # A shell that runs it in the background lets it ignore Ctrl-C, and nothing else ends it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        while True:
            if sys.stdout.isatty():
                print("\033[2J\033[H", end="")
            try:
                _print_list(platform, given)
            except Unreachable as error:
                _failed(str(error), UNREACHABLE)
            time.sleep(given.watch)


def _print_list(platform: "Platform", given: Given) -> None:
    params = {
        "state": given.state,
        "right": given.right,
        "waiting_for": given.waiting_for,
        "overdue": given.overdue or None,
        "stuck": given.stuck or None,
        "older": given.older,
        "ended": given.ended or given.state in {"completed", "refused", "cancelled"} or None,
    }
    if platform.is_whole:
        found = platform.items(
            "/privacy/v1/operations/requests", params | {"store": given.store}, limit=given.limit
        )
    else:
        path = f"/privacy/v1/stores/{_quoted(given.store or platform.store)}/waiting-requests"
        found = platform.items(path, params, limit=given.limit)
    rows = list(found)
    more = rows[-1:] == [None]
    rows = [row for row in rows if row is not None]
    if given.json:
        _say([json.dumps({"items": rows, "more": more})])
        return
    _say(_telling().table(rows) if rows else ["No request is like this."])
    if more:
        _say([f"… and more: only the first {given.limit} are shown (--limit)."])


def _explained(platform: "Platform", id_: str) -> Any:
    if platform.is_whole:
        return platform.call("GET", f"/privacy/v1/operations/requests/{_quoted(id_)}")
    return platform.call("GET", f"/privacy/v1/stores/{platform.store}/requests/{_quoted(id_)}/waiting")


def _quoted(typed: str) -> str:
    return quote(typed, safe="")


def _show(given: Given) -> int:
    with _platform(given) as platform:
        one = _explained(platform, given.id)
    _say([json.dumps(one)] if given.json else _telling().request(one))
    return DONE


def _part_path(one: Any, participant: str, verb: str) -> str:
    stores = f"/privacy/v1/stores/{one['store_id']}/requests/{one['request_id']}"
    return f"{stores}/parts/{_quoted(participant)}/{_quoted(verb)}"


def _drive(given: Given) -> int:
    with _platform(given) as platform:
        one = _explained(platform, given.id)
        parts = [
            part
            for part in one["parts"]
            if "drive" in part["ended_by"]
            and given.participant in {None, part["participant"]}
            and given.verb in {None, part["task"]}
        ]
        if not parts:
            return _failed("nothing of this request can be asked again now (see `requests show`)", REFUSED)
        for part in parts:
            platform.call("POST", f"{_part_path(one, part['participant'], part['task'])}/attempts")
            _say([f"{part['participant']} ({part['task']}) is asked again."])
    return DONE


def _settle(given: Given) -> int:
    with _platform(given) as platform:
        one = _explained(platform, given.id)
        body = {"outcome": given.outcome, "ground": given.ground, "reason": given.reason}
        path = f"{_part_path(one, given.participant, given.verb)}/settlement"
        platform.call("POST", path, json=body)
        _say([f"{given.participant} ({given.verb}) is answered for; your name and reason are on record."])
    return DONE


# --- Participants ----------------------------------------------------------------------------------------


def _participants(given: Given) -> int:
    with _platform(given) as platform:
        found = platform.call("GET", "/privacy/v1/participants")
    _say([json.dumps(found)] if given.json else _telling().participants(found))
    return DONE


def _leave(given: Given) -> int:
    body = {"successor": given.successor} if given.successor else {"ground": given.ground}
    with _platform(given) as platform:
        path = f"/privacy/v1/participants/{_quoted(given.name)}/departure"
        left = platform.call("POST", path, json=body)
    took_over = f" {given.successor} has its data." if given.successor else ""
    _say([f"{given.name} has left.{took_over} Parts of requests still to be handed over: {left['open']}."])
    return DONE
