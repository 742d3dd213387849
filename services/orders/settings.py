"""Orders' settings: `ORDERS_DATABASE_URL`, `ORDERS_SERVICE_KEY` and what all services share."""

from pydantic_settings import SettingsConfigDict

from libs.common.settings import ServiceSettings


class Settings(ServiceSettings):
    """Nothing beyond what every service has."""

    model_config = SettingsConfigDict(env_prefix="ORDERS_")
