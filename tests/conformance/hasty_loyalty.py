"""The loyalty example, whose second look at an ended store comes after a second instead of three minutes."""

import runpy
from datetime import timedelta

from libs.common import ending

ending.UNDER_WAY = timedelta(seconds=1)

if __name__ == "__main__":
    runpy.run_module("docs.examples.loyalty.worker", run_name="__main__")
