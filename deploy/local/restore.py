"""`make restore`: bring databases back from what `make backup` saved.

    make restore                                    the newest of backups/, every database that is in it
    make restore FROM=/mnt/a AT=20260102T030405Z ONLY=orders,keyring
    make restore FROM=/mnt/a KEYRING_FROM=/mnt/b DESTRUCTIONS_FROM=/mnt/c

Nobody comes back with it. Destroyed keys stay destroyed, since the destruction log is only ever added to. When the
platform starts, what was published since the backup is handled again, and whatever was erased, corrected, restricted or
objected to since is asked for again. It refuses while anything uses a database, checks every file before it changes
anything, brings each database back whole or not at all, and may be repeated.
"""

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from alembic.util import CommandError

from deploy.local import environment
from deploy.local.backup import Places, beside, names_of
from deploy.local.backups.positions import groups_of
from deploy.local.backups.servers import Place, reached
from deploy.local.backups.sets import BackupUnusable, Manifest, Saved, check, find, read
from deploy.local.backups.unknown import unknown_boxes
from deploy.local.databases import NAMES
from deploy.local.environment import SERVICES
from deploy.local.errors import AlreadyRunning, StartError
from deploy.local.migrate import migrate
from deploy.local.nursery import ROOT
from deploy.local.revisions import PACKAGES, revisions
from libs.common.db import Database
from services.privacy.keyring.master_keys import MasterKeys
from services.privacy.keyring.service.destroying import WrongLog, replay
from services.privacy.keyring.service.rewrapping import MasterKeyUnknown, check_master_keys

Say = Callable[[str], None]

_LOCK_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Chosen:
    """A database that is to be brought back, and what from."""

    manifest: Manifest
    saved: Saved
    file: Path


async def restore(
    data: Path,
    places: Places,
    only: Collection[str],
    at: str | None = None,
    *,
    broker: str = "embedded",
    say: Say,
) -> bool:
    """Bring these databases back. Returns whether the platform may be started as it is. Raises StartError."""
    chosen = _chosen(places, only, at)
    if not chosen:
        raise BackupUnusable(f"There is no backup of {', '.join(only)} in {places.databases.parent}.")
    names = {one.saved.name for one in chosen}
    async with reached(data, names | _beside(names, broker), alone=True) as variables:
        for one in chosen:
            await _check_unused(Place.of(variables, one.saved.name))
        say("Every file is as it was saved, and nobody uses a database.")
        for one in chosen:
            await _bring_back(variables, one, say)
        if services := [one for one in chosen if one.saved.name in SERVICES]:
            await _set_back(data, variables, services, broker, say)
        return await _look_at_keyring(data, variables, say) if names & {"keyring", "destructions"} else True


def _beside(names: Collection[str], broker: str) -> set[str]:
    """What else is needed: of the keyring and its log always both."""
    keyring = {"keyring", "destructions"}
    return beside(names, broker) | (keyring if set(names) & keyring else set())


def _chosen(places: Places, only: Collection[str], at: str | None) -> list[Chosen]:
    """The log first, of which the newest is always the right one; then what is asked for, all of it checked."""
    chosen: list[Chosen] = []
    for place, names in reversed(places.sets()):
        wanted = [name for name in names if name in only]
        folder = find(place, None if "destructions" in names else at) if wanted else None
        if folder is None:
            continue
        manifest = read(folder)
        for saved in manifest.databases:
            if saved.name in wanted:
                _check_revision(saved)
                chosen.append(Chosen(manifest, saved, check(folder, saved)))
    return chosen


def _check_revision(saved: Saved) -> None:
    if saved.name not in PACKAGES or saved.revision not in revisions(PACKAGES[saved.name]):
        raise BackupUnusable(
            f"{saved.file} was made by a newer release ({saved.name} is at {saved.revision}): restore it with that one."
        )


# Of other roles' sessions little more can be seen than that they are there; those of the server itself have no role.
_USERS = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND usesysid IS NOT NULL
"""


async def _check_unused(place: Place) -> None:
    async with place.connected() as connection:
        if users := await connection.fetchval(_USERS):
            raise AlreadyRunning(
                f"{users} connections use the database {place.name}: stop the platform first. Nothing was changed."
            )


# --- One database ----------------------------------------------------------------------------------------


async def _bring_back(variables: Mapping[str, str], one: Chosen, say: Say) -> None:
    began, place = time.monotonic(), Place.of(variables, one.saved.name)
    if place.name == "destructions":
        await migrate(variables, [place.name])
        say(f"  {place.name:<14}{await _merge(place, one)}")
        return
    await _replace(place, one)
    try:
        await migrate(variables, [place.name])
    except CommandError as error:
        raise StartError(f"{place.name} was brought back and cannot be migrated: {error}") from error
    since = one.saved.taken_at.isoformat(timespec="seconds")
    say(f"  {place.name:<14}as it was at {since}{time.monotonic() - began:8.1f} s")


async def _replace(place: Place, one: Chosen) -> None:
    """In one transaction: everything there goes, the backup comes, and the mark that it did."""
    with TemporaryDirectory(prefix="vitrine-") as folder:
        script = Path(folder) / "restore.sql"
        with os.fdopen(os.open(script, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as output:
            await place.run(
                "pg_restore", "--no-owner", "--no-privileges", "--file=-", str(one.file), into=output
            )
        await place.run(
            *("psql", "--no-psqlrc", "--quiet", "--single-transaction", "--set=ON_ERROR_STOP=1"),
            f"--command=SET LOCAL lock_timeout = '{_LOCK_SECONDS}s'",
            "--command=DROP OWNED BY CURRENT_USER",
            f"--file={script}",
            *(f"--command={statement}" for statement in _marks(one.saved)),
        )


def _marks(saved: Saved) -> Sequence[str]:
    """What tells that a database is older than the others."""
    if saved.name == "broker":
        # What was published since is gone from this log: with another id, whoever sent it sends it again.
        return ("UPDATE public.cluster SET id = gen_random_uuid()", "DELETE FROM public.member")
    mark = f"INSERT INTO public.restoration (taken_at) VALUES ('{saved.taken_at.isoformat()}')"  # noqa: S608 - a time
    if saved.name == "keyring":
        return (mark, "SET row_security = on", "DELETE FROM public.index_report")
    return (mark,)


_MERGE = """
    INSERT INTO destroyed_key (key_id, destroyed_at)
    SELECT key_id, destroyed_at FROM returned ON CONFLICT DO NOTHING
"""
_ADOPT = "UPDATE log_identity SET id = $1 WHERE NOT EXISTS (SELECT FROM destroyed_key)"


async def _merge(place: Place, one: Chosen) -> str:
    """Add the entries that are not there. A log that is empty becomes the one that was saved."""
    async with place.connected() as connection, connection.transaction():
        await connection.execute(
            "CREATE TEMP TABLE returned (key_id uuid, destroyed_at timestamptz) ON COMMIT DROP"
        )
        await connection.copy_to_table(
            "returned", source=str(one.file), columns=("key_id", "destroyed_at"), format="csv"
        )
        await connection.execute(_ADOPT, one.saved.identity)
        added = (await connection.execute(_MERGE)).rpartition(" ")[2]
        entries = await connection.fetchval("SELECT count(*) FROM destroyed_key")
    return f"{added} entries were missing and are added; it has {entries} now"


# --- What follows ----------------------------------------------------------------------------------------


async def _set_back(
    data: Path, variables: Mapping[str, str], chosen: Sequence[Chosen], broker: str, say: Say
) -> None:
    """Let the services read again what was published since their backup."""
    async with groups_of(variables, broker, data) as groups:
        present = await groups.cluster_id()
        for one in chosen:
            name, is_same = one.saved.name, present == one.manifest.cluster_id
            gaps = await groups.set_back(name, one.saved.positions if is_same else None)
            from_where = "since the backup" if is_same else "from the oldest event that is kept"
            say(f"  {name:<14}reads again {from_where}")
            if gaps:
                say(
                    f"  {name:<14}events of {gaps} partitions since the backup are kept no more: see docs/operations.md"
                )


async def _look_at_keyring(data: Path, variables: Mapping[str, str], say: Say) -> bool:
    """What a keyring does before it serves: better to hear it here."""
    around = {**environment.keys(data), **os.environ}
    older: list[str] = json.loads(around.get("KEYRING_OLD_MASTER_KEYS", "[]"))
    keyring = Database(variables["KEYRING_MIGRATION_DATABASE_URL"], pool_size=2)
    log = Database(variables["DESTRUCTIONS_MIGRATION_DATABASE_URL"], pool_size=2)
    try:
        returned = await replay(keyring, log)
        say(f"  {'keyring':<14}{returned} destroyed keys had come back and are destroyed again")
        for place, number in (await unknown_boxes(variables)).items():
            say(
                f"  {place:<30} {number} boxes lie under keys that are unknown: made after the backup, and lost"
            )
        under_others = await check_master_keys(keyring, MasterKeys(around["KEYRING_MASTER_KEY"], older))
    except (WrongLog, MasterKeyUnknown) as error:
        say(f"\n{error}")
        return False
    finally:
        await keyring.close()
        await log.close()
    return not under_others


_AFTER = """
Brought back. When the platform starts, every service that was restored says so, and the privacy service asks it again
for what was asked since: rows of `redo` in its database without `done_at` are still to be done. Keys that were made
after the keyring's backup are lost: what was sealed with them is unknown, which is neither erased nor an outage."""


def main() -> None:
    """Bring back what the arguments name."""
    parser = argparse.ArgumentParser(
        prog="make restore", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--from", dest="place", type=Path, default=ROOT / "backups")
    parser.add_argument("--keyring-from", type=Path)
    parser.add_argument("--destructions-from", type=Path)
    parser.add_argument("--at", help="the name of a set; the newest without it")
    parser.add_argument("--only", default=",".join(NAMES), help="names with commas between them")
    parser.add_argument("--data", type=Path, default=ROOT / ".vitrine")
    options = parser.parse_args()
    places = Places.of(options.place, options.keyring_from, options.destructions_from)
    try:
        may_start = asyncio.run(
            restore(
                options.data,
                places,
                names_of(options.only),
                options.at,
                broker=os.environ.get("BROKER", "embedded"),
                say=lambda line: print(line, flush=True),
            )
        )
    except (StartError, TimeoutError) as error:
        sys.exit(str(error))
    if not may_start:
        sys.exit("\nThe databases are back, and the keyring will not serve before this is mended.")
    print(_AFTER)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
