"""Which broker this process speaks to."""

from libs.common.broker import Broker
from libs.common.broker.kafka import KafkaBroker
from libs.common.broker.postgres import EmbeddedBroker
from libs.common.settings import ServiceSettings


def connect(settings: ServiceSettings) -> Broker:
    """The broker that `BROKER` names, not yet started. Raises ValueError when its address is missing."""
    if settings.broker == "kafka":
        if not settings.kafka_bootstrap_servers:
            raise ValueError("KAFKA_BOOTSTRAP_SERVERS is needed when BROKER is kafka")
        return KafkaBroker(settings.kafka_bootstrap_servers)
    if not settings.broker_database_url:
        raise ValueError("BROKER_DATABASE_URL is needed when BROKER is embedded")
    return EmbeddedBroker(settings.broker_database_url)
