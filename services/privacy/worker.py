"""The privacy service's second process."""

import os

from libs.common.worker import main
from services.privacy.consumer import DUTIES, HANDLERS
from services.privacy.settings import present

_NICENESS = 5
"""A request has a month and whoever buys has a second: where processors are short, all others go first."""

if __name__ == "__main__":
    os.nice(_NICENESS)
    main("privacy", present(), handlers=HANDLERS, duties=DUTIES)
