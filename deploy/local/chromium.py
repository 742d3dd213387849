"""Chromium, which only the tests of pages need."""

import shutil

from deploy.local.apt import install
from deploy.local.errors import MissingProgram

_WANTED = "The tests of pages need Chromium or Google Chrome."
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def ensure_chromium() -> str:
    """The path of the program, installed by apt-get when it is absent and we may. Raises MissingProgram."""
    if (found := _installed()) is not None:
        return found
    install(["chromium"], wanted=_WANTED)
    if (found := _installed()) is None:
        raise MissingProgram(_WANTED)
    return found


def _installed() -> str | None:
    return next((path for name in _NAMES if (path := shutil.which(name)) is not None), None)
