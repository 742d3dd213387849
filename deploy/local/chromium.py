"""Chromium, which only the tests of pages need."""

import os
import shutil
import subprocess

from deploy.local.errors import MissingProgram

PACKAGE = "chromium"
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def ensure_chromium() -> str:
    """The path of the program, installed by apt-get when it is absent and we may. Raises MissingProgram."""
    if (found := _installed()) is not None:
        return found
    command = f"apt-get install --yes {PACKAGE}"
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise MissingProgram(f"The tests of pages need Chromium or Google Chrome. Type: sudo {command}")
    print("Installing Chromium …", flush=True)
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for step in (["update"], ["install", "--yes", "--no-install-recommends", PACKAGE]):
        apt = subprocess.run(["apt-get", "-qq", *step], env=quiet, check=False, capture_output=True)
        if apt.returncode:
            words = apt.stderr.decode(errors="replace").strip()
            raise MissingProgram(f"Chromium could not be installed: {words}\nType: {command}")
    if (found := _installed()) is None:
        raise MissingProgram(f"Chromium was installed and is not there. Type: {command}")
    return found


def _installed() -> str | None:
    return next((path for name in _NAMES if (path := shutil.which(name)) is not None), None)
