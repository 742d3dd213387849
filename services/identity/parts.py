"""What the use cases of identity have at hand, one of each per process."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from libs.common.db import Database
from libs.common.personal.vault import Vault
from services.identity.keys import SigningKeys
from services.identity.passwords import Passwords
from services.identity.settings import Settings

Clock = Callable[[], datetime]


def now() -> datetime:
    """The one clock; tests pass another."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Parts:
    """Hashing and the keyring are network and time: use cases call them between transactions, never within."""

    settings: Settings
    database: Database
    vault: Vault
    passwords: Passwords
    keys: SigningKeys
    clock: Clock
