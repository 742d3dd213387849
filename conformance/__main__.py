"""`make conformance`: play the privacy service towards one participant, and say what it lacks.

    make conformance ARGS="--participant newsletter --kafka 127.0.0.1:9092 --seed-url http://127.0.0.1:8090/subscribers"
    make conformance ARGS="--participant newsletter --command 'node dist/main.js' --seed-command ./seed.sh"
    make conformance ARGS="--webhook https://127.0.0.1:8443/hook --secret whsec_… --seed-url …"
    make conformance ARGS="--webhook https://127.0.0.1:8443/webhooks --secret … --shopify"

`docs/adding-a-participant.md` says what each check means. The exit code is 0 only when nothing is missing.
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from typing import Any

from conformance import over_kafka, over_webhook
from conformance.checks import Check, Finding, Verdict
from conformance.report import as_json, line, listed, summary
from conformance.running import check_over_kafka, check_over_webhook
from deploy.local.errors import StartError


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, check, and say what was found."""
    options = _options(arguments)
    checks = _chosen(_checks(options), options.only)
    if options.list:
        print("\n".join(listed(check) for check in checks))
        return
    run = check_over_webhook if options.webhook else check_over_kafka
    try:
        findings = asyncio.run(run(options, checks, report=_silent if options.json else _tell))
    except StartError as error:
        sys.exit(str(error))
    print(as_json(findings) if options.json else summary(findings))
    sys.exit(any(one.verdict is Verdict.MISSING for one in findings))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make conformance", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    option = parser.add_argument
    option("--participant", metavar="NAME", help="on a broker: the name it announces itself by")
    option("--kafka", metavar="HOST:PORT", help="a broker that runs; otherwise the kit starts one")
    option("--keyring-port", type=int, metavar="PORT", help="where the kit's keyring answers")
    option("--command", metavar="COMMAND", help="starts the participant, so that the kit can restart it")
    option("--webhook", metavar="URL", help="outside: where deliveries are taken")
    option(
        "--secret",
        metavar="SECRET",
        help="what deliveries are signed with: whsec_…, or Shopify's client secret",
    )
    option("--shopify", action="store_true", help="Shopify's three compliance webhooks instead of ours")
    option("--controller", action="store_true", help="it decides for itself: it is told, and need not answer")
    option("--seed-url", metavar="URL", help="takes a person as JSON by POST, and holds data of them")
    option("--seed-command", metavar="COMMAND", help="the same, with the JSON on standard input")
    option("--patience", type=float, default=20.0, metavar="SECONDS", help="for one answer (20)")
    option("--only", default="", metavar="NAMES", help="these checks alone, with commas between them")
    option("--json", action="store_true", help="the report as JSON")
    option("--list", action="store_true", help="name every check, and ask nobody")
    options = parser.parse_args(arguments)
    if options.list:
        return options
    if bool(options.participant) == bool(options.webhook):
        parser.error("name either a --participant on a broker or a --webhook outside")
    if options.webhook and not options.secret:
        parser.error("--secret is what deliveries to the --webhook are signed with")
    return options


def _checks(options: argparse.Namespace) -> Sequence[Check[Any]]:
    if options.shopify:
        return over_webhook.SHOPIFY
    if options.webhook:
        return over_webhook.STANDARD
    if options.participant:
        return over_kafka.CHECKS
    return [*over_kafka.CHECKS, *over_webhook.STANDARD, *over_webhook.SHOPIFY]


def _chosen(checks: Sequence[Check[Any]], only: str) -> Sequence[Check[Any]]:
    """All, or those named, behind the first, without which nobody can be asked."""
    names = {name for name in only.split(",") if name}
    if unknown := names - {check.name for check in checks}:
        sys.exit(f"no such check: {', '.join(sorted(unknown))}; --list names them")
    return [check for check in checks if not names or check is checks[0] or check.name in names]


def _tell(finding: Finding) -> None:
    print(line(finding), flush=True)


def _silent(_: Finding) -> None:
    """What is told as JSON is told at the end."""


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
