"""What the keyring reads from its environment."""

from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from libs.common.personal.vocabulary import Purpose, Retention


class ExtraGrant(BaseModel):
    """What a participant that is not one of our services may do. Never to erase."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mint: frozenset[Retention] = frozenset()
    open: dict[Purpose, frozenset[Retention]] = {}


class KeyringSettings(BaseSettings):
    """`KEYRING_DATABASE_URL`, `KEYRING_MASTER_KEY`, …; the two names that others share carry no prefix."""

    model_config = SettingsConfigDict(
        env_prefix="KEYRING_", extra="ignore", populate_by_name=True, frozen=True
    )

    database_url: str
    destructions_database_url: str = Field(validation_alias="DESTRUCTIONS_DATABASE_URL")
    master_key: SecretStr
    """32 bytes in base64: wraps every key and secret that is made."""
    old_master_keys: list[SecretStr] = []
    """Those that wrapped before, until everything is wrapped anew."""
    trusted_log: UUID | None = None
    """The destruction log to go on with after the one before it was lost for good."""
    service_keys: dict[str, dict[str, Any]] = Field(validation_alias="SERVICE_KEYS")
    """The public ES256 JWK of each service, by its name."""
    extra_grants: dict[str, ExtraGrant] = {}
    """By the name of a participant in `service_keys`; none of our own services can be given more here."""
    store_secret_seconds: float = Field(600, gt=0, le=3600, validation_alias="STORE_SECRET_SECONDS")
    """How long services remember the secrets of stores: one that changes is written with after twice that."""
    database_pool_size: int = Field(10, ge=1, le=200, validation_alias="DATABASE_POOL_SIZE")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", validation_alias="LOG_LEVEL")
