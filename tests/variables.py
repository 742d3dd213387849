"""The variables of the environment that configure services."""

import os
from collections.abc import Generator
from contextlib import contextmanager

import pytest

_ENDINGS = ("_DATABASE_URL", "_SERVICE_KEY", "_MASTER_KEY")
_SHARED = {"SERVICE_KEYS", "KEYRING_URL", "PUBLIC_URL", "SMTP_URL", "JWKS_URL", "PRIVACY_PARTICIPANTS"}


@contextmanager
def unset() -> Generator[None]:
    """None of those that other tests set for services in this process: a Platform makes its own."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.endswith(_ENDINGS) or name in _SHARED]:
            patch.delenv(name)
        yield
