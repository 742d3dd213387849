"""promtool, which only the tests of alert rules need."""

import shutil

from deploy.local.apt import install
from deploy.local.errors import MissingProgram

_WANTED = "The tests of alert rules need promtool, of Debian's package prometheus (its server need not run)."


def ensure_promtool() -> str:
    """The path of the program, installed by apt-get when it is absent and we may. Raises MissingProgram."""
    if (found := shutil.which("promtool")) is not None:
        return found
    install(["prometheus"], wanted=_WANTED)
    if (found := shutil.which("promtool")) is None:
        raise MissingProgram(_WANTED)
    return found
