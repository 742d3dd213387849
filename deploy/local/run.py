"""`make run`: the whole platform on this machine, until Ctrl-C."""

import argparse
import asyncio
import json
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from deploy.local.errors import StartError
from deploy.local.nursery import ROOT
from deploy.local.platform import Platform


def say(line: str = "") -> None:
    """Print a line at once; a terminal that was closed must not keep anything from being stopped in order."""
    with suppress(OSError):
        print(line, flush=True)


async def run(port: int, data: Path, broker: str) -> None:
    """Serve until SIGINT, SIGTERM or SIGHUP, whichever comes first, also in the middle of a start."""
    serving = asyncio.create_task(serve(port, data, broker))
    asked = asyncio.Event()

    def stop() -> None:
        # Once: a second Ctrl-C must not interrupt the draining that the first one began.
        if not asked.is_set():
            asked.set()
            say("\nStopping: what is under way is finished first …")
            serving.cancel()

    for wanted in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(wanted, stop)
    with suppress(asyncio.CancelledError):
        await serving
    say("Stopped. Nothing is lost: the next start finds everything again.")


async def serve(port: int, data: Path, broker: str) -> None:
    """Start, fill the demo store, show the way in, then keep everything alive until cancelled."""
    begin = time.monotonic()
    say("Vitrine is starting …")
    async with Platform(data, port, broker, report=lambda line: say(f"  {line}")) as platform:
        await _seed(platform)
        _welcome(platform, time.monotonic() - begin)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(platform.supervise())
            tasks.create_task(_show_warnings(platform))


async def _seed(platform: Platform) -> None:
    """Make the demo store once; a failure is shown, stops nothing, and is tried again at the next start."""
    if platform.demo_store.exists():
        return
    say("  filling the demo store …")
    seeding = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "deploy.local.seed", "--url", platform.url),
        cwd=ROOT,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        words, problems = await seeding.communicate()
    except asyncio.CancelledError:
        seeding.kill()
        raise
    if seeding.returncode == 0:
        # The next start may be on another port.
        platform.demo_store.write_bytes(words.replace(platform.url.encode(), b"{url}"))
    else:
        say("  the demo store could not be made: " + problems.decode(errors="replace").strip()[-500:])


def _welcome(platform: Platform, seconds: float) -> None:
    say(f"\nReady in {seconds:.1f} s: {platform.url}\n")
    say(f"  start here   {platform.url}/")
    say(f"  mails        {platform.url}/mailbox")
    if platform.demo_store.exists():
        for line in platform.demo_store.read_text().splitlines():
            say(f"  {line.replace('{url}', platform.url)}")
    say(f"  see it all   VITRINE_URL={platform.url} make demo   (in a second terminal)")
    say(f"  logs         {platform.data / 'logs'}")
    say("\nCtrl-C stops everything.")


async def _show_warnings(platform: Platform) -> None:
    """Repeat on the terminal what the processes log as a warning or worse."""
    read = {name: process.log.stat().st_size for name, process in platform.processes.items()}
    while True:
        await asyncio.sleep(0.5)
        for name, process in platform.processes.items():
            # A log that grew too large was moved aside and begun anew.
            size = process.log.stat().st_size
            read[name] = min(read[name], size)
            if size > read[name]:
                with process.log.open("rb") as log:
                    log.seek(read[name])
                    whole, _, _ = log.read().rpartition(b"\n")
                read[name] += len(whole) + 1 if whole else 0
                for line in filter(_is_warning, map(_parsed, whole.splitlines())):
                    say(f"{name}: {line['level'].lower()}: {line['message']}")


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(line)
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _is_warning(line: dict[str, Any]) -> bool:
    return line.get("level") in {"WARNING", "ERROR", "CRITICAL"} and "message" in line


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="make run",
        description="Start the whole platform on this machine. BROKER=kafka uses Apache Kafka.",
    )
    parser.add_argument("--port", type=int, default=8000, help="public port (8000)")
    parser.add_argument("--data", type=Path, default=Path(".vitrine"), help="folder of all data (.vitrine)")
    options = parser.parse_args()
    try:
        asyncio.run(run(options.port, options.data, os.environ.get("BROKER", "embedded")))
    except (StartError, TimeoutError) as error:
        sys.exit(f"\n{error}")


if __name__ == "__main__":
    main()
