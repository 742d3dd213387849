"""Billing's settings: `BILLING_DATABASE_URL`, `BILLING_SERVICE_KEY` and what all services share."""

from pydantic_settings import SettingsConfigDict

from libs.common.settings import ServiceSettings


class Settings(ServiceSettings):
    """Nothing beyond what every service has."""

    model_config = SettingsConfigDict(env_prefix="BILLING_")
