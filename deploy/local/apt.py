"""Programs that only a package manager brings."""

import os
import shutil
import subprocess
from collections.abc import Sequence

from deploy.local.errors import MissingProgram


def install(packages: Sequence[str], *, wanted: str) -> None:
    """Install Debian packages by apt-get where we may; `wanted` says who needs what. Raises MissingProgram."""
    command = f"apt-get install --yes {' '.join(packages)}"
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise MissingProgram(f"{wanted} Type: sudo {command}")
    print(f"Installing {', '.join(packages)} …", flush=True)
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for step in (["update"], ["install", "--yes", "--no-install-recommends", *packages]):
        apt = subprocess.run(["apt-get", "-qq", *step], env=quiet, check=False, capture_output=True)
        if apt.returncode:
            words = apt.stderr.decode(errors="replace").strip()
            raise MissingProgram(f"{wanted} It could not be installed: {words}\nType: {command}")
