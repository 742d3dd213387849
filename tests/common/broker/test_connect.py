"""`BROKER` chooses the adapter, and its address must be there."""

from typing import Any

import pytest

from libs.common.broker.connect import connect
from libs.common.broker.kafka import KafkaBroker
from libs.common.broker.postgres import EmbeddedBroker
from libs.common.settings import ServiceSettings


def settings(**values: Any) -> ServiceSettings:
    return ServiceSettings.model_validate({"database_url": "postgresql://h/d", "service_key": "{}"} | values)


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BROKER", "BROKER_DATABASE_URL", "KAFKA_BOOTSTRAP_SERVERS"):
        monkeypatch.delenv(name, raising=False)


def test_the_embedded_log_is_the_default() -> None:
    assert isinstance(connect(settings(broker_database_url="postgresql://h/b")), EmbeddedBroker)


async def test_kafka_is_chosen_by_name() -> None:
    chosen = connect(settings(broker="kafka", kafka_bootstrap_servers="h:1"))
    assert isinstance(chosen, KafkaBroker)


@pytest.mark.parametrize("broker", ["embedded", "kafka"])
def test_a_missing_address_is_named(broker: str) -> None:
    with pytest.raises(ValueError, match="is needed when BROKER is"):
        connect(settings(broker=broker))
