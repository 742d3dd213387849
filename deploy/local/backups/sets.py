"""A set of backups in a folder of its own: written aside, named when it is whole, and checked before it is used."""

import hashlib
import os
import shutil
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from deploy.local.errors import DiskFull, StartError

_MANIFEST = "manifest.json"
_STAMP = "%Y%m%dT%H%M%SZ"
_CHUNK = 2**20


class BackupUnusable(StartError):
    """A backup is missing, incomplete, altered, or of another version. Nothing was changed."""


Positions = dict[str, int]
"""Of a consumer group: `topic/partition`, and the offset of the next record it had to handle."""


class Saved(BaseModel):
    """One database in a set."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    file: str
    size: int
    """Bytes."""
    sha256: str
    taken_at: datetime
    """By the clock of its server, before anything was read: what was committed by then is in it."""
    revision: str
    """Of its migrations."""
    positions: Positions | None = None
    """Where the service's group was before anything was read; none for what consumes nothing."""
    identity: str | None = None
    """Of a destruction log."""


class Manifest(BaseModel):
    """What a set holds, and what it was made from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    taken_at: datetime
    platform: str
    """The release that made it."""
    postgres: str
    """Of the programs that made it."""
    broker: str
    cluster_id: str | None
    """Of the broker that the positions belong to."""
    databases: Sequence[Saved]
    format: Literal[1] = 1


def stamp(moment: datetime) -> str:
    """The name of a set."""
    return moment.astimezone(UTC).strftime(_STAMP)


# --- Writing ---------------------------------------------------------------------------------------------


@contextmanager
def new_set(place: Path, name: str) -> Generator[Path]:
    """A folder to fill; it gets its name when the block has ended well, and is removed when it has not.

    Raises DiskFull, StartError.
    """
    final, aside = place / name, place / f"{name}.partial"
    try:
        if final.exists():
            raise StartError(f"{final} is there already. Wait a second, then start again.")
        shutil.rmtree(aside, ignore_errors=True)
        place.mkdir(parents=True, exist_ok=True)
        aside.mkdir(mode=0o700)
        yield aside
        _sync(aside)
        aside.rename(final)
        _sync(place)
    except OSError as error:
        raise explained(error, place) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def new_file(path: Path) -> int:
    """A descriptor of a file that only its owner may read."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """The last file of a set."""
    content = manifest.model_dump_json(indent=2) + "\n"
    with os.fdopen(new_file(folder / _MANIFEST), "w") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            found.update(chunk)
    return found.hexdigest()


def explained(error: OSError, place: Path) -> StartError:
    """What the system refused, for whoever is at the terminal."""
    if error.errno in {28, 122}:  # ENOSPC, EDQUOT
        return DiskFull(f"There is no room left in {place}. Nothing of this backup is kept.")
    return StartError(f"{place} cannot be used: {error.strerror}. Check who may write there.")


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- Reading ---------------------------------------------------------------------------------------------


def find(place: Path, at: str | None) -> Path | None:
    """The set of this name, or the newest. None when there is none. Raises BackupUnusable for a name that is not."""
    names = sorted(one.name for one in place.glob("*") if _moment(one.name) is not None)
    if at is not None and at not in names:
        raise BackupUnusable(f"There is no backup {at} in {place}. There are: {', '.join(names) or 'none'}.")
    return place / (at or names[-1]) if names else None


def read(folder: Path) -> Manifest:
    """The manifest of a set. Raises BackupUnusable."""
    try:
        return Manifest.model_validate_json((folder / _MANIFEST).read_bytes())
    except OSError as error:
        raise BackupUnusable(f"{folder} has no manifest that can be read: {error.strerror}.") from error
    except ValidationError as error:
        raise BackupUnusable(
            f"The manifest of {folder} is damaged, or of a release that this one cannot read."
        ) from error


def check(folder: Path, saved: Saved) -> Path:
    """The file of a database in a set, once it is what its manifest says. Raises BackupUnusable."""
    file = folder / Path(saved.file).name
    if not file.is_file():
        raise BackupUnusable(f"{file} is missing. Nothing was changed.")
    if file.stat().st_size != saved.size or digest(file) != saved.sha256:
        raise BackupUnusable(
            f"{file} is not what its manifest says: it was altered or is damaged. Nothing was changed."
        )
    return file


# --- Pruning ---------------------------------------------------------------------------------------------


def prune(place: Path, *, before: datetime) -> list[str]:
    """Delete the sets from before a moment. Returns their names."""
    old = [one for one in place.glob("*") if (moment := _moment(one.name)) is not None and moment < before]
    for folder in old:
        shutil.rmtree(folder)
    return sorted(folder.name for folder in old)


def keep_newest(place: Path, number: int) -> list[str]:
    """Delete all but the newest sets. Returns their names."""
    old = sorted(one for one in place.glob("*") if _moment(one.name) is not None)[:-number]
    for folder in old:
        shutil.rmtree(folder)
    return [folder.name for folder in old]


def _moment(name: str) -> datetime | None:
    try:
        return datetime.strptime(name, _STAMP).replace(tzinfo=UTC)
    except ValueError:
        return None
