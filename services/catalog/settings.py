"""Catalog's settings: `CATALOG_DATABASE_URL`, `CATALOG_SERVICE_KEY` and what all services share."""

from pydantic_settings import SettingsConfigDict

from libs.common.settings import ServiceSettings


class Settings(ServiceSettings):
    """Nothing beyond what every service has."""

    model_config = SettingsConfigDict(env_prefix="CATALOG_")
