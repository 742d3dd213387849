"""`make backup`: every database of the platform, while it runs.

    make backup                                     into backups/
    make backup TO=/mnt/a KEYRING_TO=/mnt/b DESTRUCTIONS_TO=/mnt/c
    make backup ONLY=destructions                   the log alone, which is worth doing often

Each database is saved as it was at one instant; between two of them lies a moment, and what happened in it is made good
after a restore, from the broker and the privacy service. Databases elsewhere are named by `…_DATABASE_URL` and
`…_MIGRATION_DATABASE_URL`. What is older than BACKUP_DAYS (30), or KEYRING_BACKUP_DAYS (7) for the keyring, is deleted.
"""

import argparse
import asyncio
import os
import shutil
import sys
import time
import tomllib
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from deploy.local.backups.positions import Groups, groups_of
from deploy.local.backups.servers import Place, reached
from deploy.local.backups.sets import (
    Manifest,
    Saved,
    digest,
    explained,
    keep_newest,
    new_file,
    new_set,
    prune,
    stamp,
    write_manifest,
)
from deploy.local.databases import NAMES
from deploy.local.environment import SERVICES
from deploy.local.errors import DiskFull, StartError
from deploy.local.nursery import ROOT

Say = Callable[[str], None]

# A group's offsets in the log are older than its service's rows; a box's key is made before its row; what a keyring has
# destroyed is in the log before it is gone. So each is saved after what it must not fall behind.
_ORDER = ("broker", *SERVICES, "keyring", "destructions")
_LOGS_KEPT = 10
"""Backups of the destruction log: each has all that the ones before it have."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where the three sets go, or come from."""

    databases: Path
    keyring: Path
    destructions: Path

    @classmethod
    def of(cls, to: Path, keyring: Path | None = None, destructions: Path | None = None) -> "Places":
        """The folders within these."""
        return cls(
            (to / "databases").absolute(),
            ((keyring or to) / "keyring").absolute(),
            ((destructions or to) / "destructions").absolute(),
        )

    def sets(self) -> Sequence[tuple[Path, Sequence[str]]]:
        """Each folder, with the databases that go there in the order in which they are saved."""
        first = tuple(name for name in _ORDER if name not in {"keyring", "destructions"})
        return ((self.databases, first), (self.keyring, ("keyring",)), (self.destructions, ("destructions",)))


async def backup(
    data: Path,
    places: Places,
    only: Collection[str],
    *,
    broker: str = "embedded",
    days: int = 30,
    keyring_days: int = 7,
    say: Say,
) -> str:
    """Save these databases. Returns the name of the sets. Raises StartError; what was not finished is removed."""
    now = datetime.now(UTC)
    names = [name for name in _ORDER if name in only and not (name == "broker" and broker == "kafka")]
    async with AsyncExitStack() as stack:
        variables = await stack.enter_async_context(
            reached(data, {*names, *beside(names, broker)}, alone=False)
        )
        groups = None
        if set(names) & set(SERVICES):
            groups = await stack.enter_async_context(groups_of(variables, broker, data))
        source = Source(variables, broker, groups)
        for place, of_set in places.sets():
            if wanted := [name for name in of_set if name in names]:
                await _save_set(source, place, stamp(now), wanted, say)
    _prune(places, now, days, keyring_days, say)
    return stamp(now)


def beside(names: Collection[str], broker: str) -> set[str]:
    """What else is needed: how far services have read is in the embedded log."""
    return {"broker"} if broker == "embedded" and set(names) & set(SERVICES) else set()


@dataclass(frozen=True, slots=True)
class Source:
    """What is saved from."""

    variables: Mapping[str, str]
    broker: str
    groups: Groups | None


async def _save_set(source: Source, place: Path, name: str, wanted: Sequence[str], say: Say) -> None:
    with new_set(place, name) as folder:
        await _check_room(source.variables, place, wanted)
        say(f"{place / name}")
        taken_at = datetime.now(UTC)
        cluster_id = await source.groups.cluster_id() if source.groups is not None else None
        saved = [await _save(source, folder, one, say) for one in wanted]
        manifest = Manifest(
            taken_at=taken_at,
            platform=_release(),
            postgres="18",
            broker=source.broker,
            cluster_id=cluster_id,
            databases=saved,
        )
        write_manifest(folder, manifest)


def _release() -> str:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return project["project"]["version"]


async def _check_room(variables: Mapping[str, str], place: Path, wanted: Sequence[str]) -> None:
    """A dump is smaller than its database, so what has room for those has room for these."""
    needed = 0
    for name in wanted:
        async with Place.of(variables, name).connected() as connection:
            needed += await connection.fetchval("SELECT pg_database_size(current_database())")
    free = free_bytes(place)
    if free < needed // 4:
        raise DiskFull(f"{needed // 4 // 2**20} MB are needed in {place}, where {free // 2**20} MB are free.")


def free_bytes(place: Path) -> int:
    """What is free on the disk of a folder."""
    return shutil.disk_usage(place).free


async def _save(source: Source, folder: Path, name: str, say: Say) -> Saved:
    began, place, groups = time.monotonic(), Place.of(source.variables, name), source.groups
    # Before anything is read: what is committed by then is in the dump, and what is handled after it will come again.
    positions = await groups.read(name) if groups is not None and name in SERVICES else None
    async with place.connected() as connection:
        taken_at = await connection.fetchval("SELECT clock_timestamp()")
        revision = await connection.fetchval("SELECT version_num FROM alembic_version")
        identity = (
            await connection.fetchval("SELECT id FROM log_identity") if name == "destructions" else None
        )
    file = folder / (f"{name}.csv" if name == "destructions" else f"{name}.dump")
    if name == "destructions":
        await _save_log(place, file)
    else:
        await _dump(place, file)
    saved = Saved(
        name=name,
        file=file.name,
        size=file.stat().st_size,
        sha256=digest(file),
        taken_at=taken_at,
        revision=revision,
        positions=positions,
        identity=identity and str(identity),
    )
    say(f"  {name:<14}{saved.size / 2**20:9.2f} MB{time.monotonic() - began:7.1f} s")
    return saved


async def _dump(place: Place, file: Path) -> None:
    with os.fdopen(new_file(file), "wb") as output:
        try:
            # Row-level security binds the owner too, who names all stores; without it pg_dump would refuse.
            await place.run(
                "pg_dump",
                "--format=custom",
                "--enable-row-security",
                "--no-owner",
                "--no-privileges",
                into=output,
            )
        except StartError as error:
            if "No space left" in str(error):
                raise DiskFull(f"There is no room left in {file.parent.parent}.") from error
            raise
        os.fsync(output.fileno())


async def _save_log(place: Place, file: Path) -> None:
    """Its entries, and no table of them: they are added to another log, and never take its place."""
    with os.fdopen(new_file(file), "wb") as output:
        async with place.connected() as connection:
            await connection.copy_from_query(
                "SELECT key_id, destroyed_at FROM destroyed_key ORDER BY key_id", output=output, format="csv"
            )
        output.flush()
        os.fsync(output.fileno())


def _prune(places: Places, now: datetime, days: int, keyring_days: int, say: Say) -> None:
    try:
        gone = prune(places.databases, before=now - timedelta(days=days))
        gone += prune(places.keyring, before=now - timedelta(days=keyring_days))
        gone += keep_newest(places.destructions, _LOGS_KEPT)
    except OSError as error:
        raise explained(error, places.databases) from error
    if gone:
        say(f"Deleted, since their time is over: {', '.join(sorted(set(gone)))}")


_ADVICE = """
Three things are not in it:
  - the secrets: {secrets} or your KEYRING_MASTER_KEY, without which no backup opens. Keep them apart from all of it;
  - keys made from now on: what is sealed with them cannot be read with a keyring from this backup. Archive the
    write-ahead log of the keyring's database, or give it a replica; docs/operations.md says how;
  - keys destroyed from now on: replicate the destruction log synchronously, or save it often (ONLY=destructions)."""


def main() -> None:
    """Save what the arguments name."""
    parser = argparse.ArgumentParser(
        prog="make backup", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--to", type=Path, default=ROOT / "backups")
    parser.add_argument("--keyring-to", type=Path)
    parser.add_argument("--destructions-to", type=Path)
    parser.add_argument("--only", default=",".join(NAMES), help="names with commas between them")
    parser.add_argument("--data", type=Path, default=ROOT / ".vitrine")
    options = parser.parse_args()
    places = Places.of(options.to, options.keyring_to, options.destructions_to)
    try:
        name = asyncio.run(
            backup(
                options.data,
                places,
                names_of(options.only),
                broker=os.environ.get("BROKER", "embedded"),
                days=_days("BACKUP_DAYS", 30),
                keyring_days=_days("KEYRING_BACKUP_DAYS", 7),
                say=lambda line: print(line, flush=True),
            )
        )
    except (StartError, TimeoutError) as error:
        sys.exit(str(error))
    if places.keyring.parent == places.destructions.parent:
        print(
            "\nThe keyring and the destruction log lie in one place: give one of them another before you rely on it."
        )
    print(_ADVICE.format(secrets=options.data / "secrets.json"))
    print(f"\nSaved. To bring it back: make restore AT={name}")


def names_of(only: str) -> list[str]:
    """The databases that a list names. Raises StartError for one that is none of ours."""
    names = [name.strip() for name in only.split(",") if name.strip()]
    if unknown := set(names) - set(NAMES):
        raise StartError(f"There is no database {', '.join(sorted(unknown))}. There are: {', '.join(NAMES)}.")
    return names


def _days(variable: str, otherwise: int) -> int:
    text = os.environ.get(variable, str(otherwise))
    if not text.isdigit() or int(text) < 1:
        raise StartError(f"{variable} is a number of days, from 1; it is {text!r}.")
    return int(text)


if __name__ == "__main__":
    try:
        main()
    except StartError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
