"""The command line: `vitrine verify` and those of operators, or `python -m vitrine …` where it is not installed."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from joserfc.errors import JoseError

from vitrine import certificate, log, operating, pdf
from vitrine.certificate import Altered, Checked
from vitrine.heads import Head
from vitrine.log import Audit
from vitrine.signing import Keys, NotSigned

GENUINE, ALTERED, UNREADABLE, BY_ITS_OWN_KEY = 0, 1, 2, 3
_CODES = """exit codes:
  0  everything matches, by a key you gave
  1  refused: something does not match, and it says what
  2  a file cannot be read, or the command is not understood
  3  everything matches, but only by a key that came with the file

Ask for the key where you trust it: https://SHOP/privacy/v1/keys.json, an archived copy of it, or the authority you
complained to. Nothing is asked of any server here.
"""


class Unreadable(ValueError):
    """A file is not there, or is not what it should be."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command, and says how it went."""
    given = _parser().parse_args(arguments)
    return _verify(given) if given.run is _verify else operating.run(given)


def _verify(given: argparse.Namespace) -> int:
    try:
        own, heads = _keys(given.key), given.head
        content = _read(given.file)
        return _verify_log(content, own, heads) if given.log else _verify_certificate(content, own)
    except Altered as error:
        _say(f"REFUSED  {error}")
        return ALTERED
    except Unreadable as error:
        print(f"vitrine: {error}", file=sys.stderr)
        return UNREADABLE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vitrine",
        description="Checks what a Vitrine platform certifies, and looks after its requests.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    verify = commands.add_parser(
        "verify",
        help="check a certificate, or a whole evidence log, offline",
        description="Checks a certificate (JSON or PDF) or, with --log, a store's whole evidence log; offline.",
        epilog=_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verify.set_defaults(run=_verify)
    verify.add_argument("file", type=Path, help="the certificate, or the log")
    verify.add_argument(
        "--key",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="public keys you trust: a JWK or a JWK set; may be given more than once",
    )
    verify.add_argument("--log", action="store_true", help="the file is an evidence log")
    verify.add_argument(
        "--head",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="with --log: a head, or a certificate, that somebody kept; the log must still have what it covers",
    )
    operating.add_commands(commands)
    return parser


# --- Files -----------------------------------------------------------------------------------------------


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Unreadable(f"{path}: {error.strerror}") from error


def _keys(paths: Sequence[Path]) -> Keys | None:
    """The keys that were given; None where none were."""
    found: list[Any] = []
    for path in paths:
        try:
            said = json.loads(_read(path))
            found += said.get("keys", [said])
        except (ValueError, TypeError, AttributeError) as error:
            raise Unreadable(f"{path}: no JWK and no JWK set") from error
    return _imported(found) if paths else None


def _imported(found: Sequence[Any]) -> Keys:
    try:
        return Keys(found)
    except (JoseError, ValueError, TypeError) as error:
        raise Unreadable("a key cannot be read") from error


def _kept_head(path: Path, keys: Keys) -> Head:
    """A head that somebody kept: as it was published, or in a certificate."""
    content = _read(path)
    if pdf.is_pdf(content):
        content = pdf.certificate_in(content)
    text = content.decode("utf-8", "replace").strip()
    try:
        if text.startswith("{"):
            said = json.loads(text)
            text = said["certificate"]["head"] if "certificate" in said else said["head"]
        return Head.read(text, keys)
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, NotSigned):
            raise Altered(f"{path}: this head is not signed by a key that is trusted.") from error
        raise Unreadable(f"{path}: no head and no certificate") from error


# --- Commands --------------------------------------------------------------------------------------------


def _verify_certificate(content: bytes, own: Keys | None) -> int:
    page = pdf.is_pdf(content)
    document = certificate.read(pdf.certificate_in(content) if page else content)
    keys = own or _carried(document)
    if page:
        pdf.check(content, keys)
    checked = certificate.check(document, keys)
    for line in certificate.in_words(checked):
        _say(line)
    _say("")
    for line in _strength(checked, page=page):
        _say(line)
    return _end(own)


def _carried(document: Any) -> Keys:
    carried = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(carried, list) or not carried:
        raise Altered("It carries no key, and none was given.")
    try:
        return Keys(carried)
    except (JoseError, ValueError, TypeError) as error:
        raise Altered("The key that it carries cannot be read.") from error


def _strength(checked: Checked, *, page: bool) -> list[str]:
    """What the check rests on."""
    head = checked.head
    lines = [
        "OK  the certificate is as it was signed",
        f"OK  {checked.entries} entries are in the log of {head.size}, under the head signed at {head.at.isoformat()}",
        f"OK  {checked.signed_answers} answers bear the signature of the participant that gave them",
    ]
    if page:
        lines.insert(0, "OK  the PDF is, byte for byte, as it was made")
    if checked.gone:
        lines.append(f"--  of {checked.gone} entries only the hash is kept any more")
    if checked.before:
        lines.append(f"OK  it completes {len(checked.before)} certificates, which are genuine too")
    return lines


def _verify_log(content: bytes, own: Keys | None, heads: Sequence[Path]) -> int:
    lines = content.splitlines()
    keys = own or Keys(log.keys_in(lines))
    found = log.audit(lines, keys, [_kept_head(path, keys) for path in heads])
    for line in _audited(found):
        _say(line)
    return _end(own)


def _audited(found: Audit) -> list[str]:
    lines = [
        f"OK  the log of store {found.log}: {found.entries} entries, none missing, changed or out of its place",
        f"OK  {found.heads} heads, each of which the entries lead to",
    ]
    if found.seen:
        lines.append(f"OK  {found.seen} heads that were kept elsewhere are still its past")
    else:
        lines.append(
            "--  no head that was kept elsewhere was given: a log replaced as a whole would look like this"
        )
    if found.gone:
        lines.append(f"--  of {found.gone} entries only the hash is kept any more")
    if found.uncovered:
        lines.append(f"--  {found.uncovered} entries are under no head yet")
    return lines


def _end(own: Keys | None) -> int:
    if own is not None:
        return GENUINE
    _say(
        "WARNING  signed by the key it carries: nothing was changed since, but who signed is not shown. Give --key."
    )
    return BY_ITS_OWN_KEY


def _say(line: str) -> None:
    print(line)


if __name__ == "__main__":
    sys.exit(main())
