"""The privacy service's second process."""

from libs.common.worker import main
from services.privacy.consumer import DUTIES, HANDLERS
from services.privacy.settings import present

if __name__ == "__main__":
    main("privacy", present(), handlers=HANDLERS, duties=DUTIES)
