"""The whole service: what it holds, and a worker that answers for it.

python -m docs.examples.loyalty.worker
"""

from pydantic_settings import SettingsConfigDict

from docs.examples.loyalty.models import Base, Card, CardHolder
from libs.common.ending import Endings
from libs.common.personal.holdings import Holding, OnErase
from libs.common.personal.participant import Participant
from libs.common.settings import ServiceSettings
from libs.common.stores import STORES
from libs.common.worker import main


class Settings(ServiceSettings):
    """`LOYALTY_DATABASE_URL`, `LOYALTY_SERVICE_KEY` and what all services share."""

    model_config = SettingsConfigDict(env_prefix="LOYALTY_")


HOLDINGS = [Holding(table=Card, box="holder", kind=CardHolder, on_erase=OnErase.DELETE, describe=("points",))]
PARTICIPANT = Participant(service="loyalty", holdings=HOLDINGS, settings=Settings)
ENDINGS = Endings(PARTICIPANT, metadata=Base.metadata, holdings=HOLDINGS)

if __name__ == "__main__":
    main(
        "loyalty",
        Settings.model_validate({}),
        handlers={**STORES, **PARTICIPANT.handlers, **ENDINGS.handlers},
        duties=[*PARTICIPANT.duties, *ENDINGS.duties],
    )
