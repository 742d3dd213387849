"""Settings every service shares; each service's own `settings.py` adds its prefix and its own fields."""

import base64
import binascii
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PostgresDsn, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


def _is_a_key(key: SecretStr) -> SecretStr:
    try:
        material = base64.b64decode(key.get_secret_value(), validate=True)
    except binascii.Error:
        material = b""
    if len(material) != 32:
        raise ValueError("a master key is 32 bytes in base64")
    return key


MasterKey = Annotated[SecretStr, AfterValidator(_is_a_key)]
"""32 bytes in base64: wraps what a service keeps and must be able to use."""


def key_bytes(key: SecretStr) -> bytes:
    """A master key itself."""
    return base64.b64decode(key.get_secret_value())


class ServiceSettings(BaseSettings):
    """Read from the environment: a service's own variables carry its name (`ORDERS_DATABASE_URL`).

    What all services share (the broker, the addresses of the keyring and of identity) carries none.
    """

    model_config = SettingsConfigDict(extra="ignore", populate_by_name=True, frozen=True)

    database_url: str
    service_key: SecretStr
    """This service's ES256 private key, a JWK: it signs calls to the keyring and answers to requests."""

    broker: Literal["embedded", "kafka"] = Field("embedded", validation_alias="BROKER")
    broker_database_url: str | None = Field(None, validation_alias="BROKER_DATABASE_URL")
    kafka_bootstrap_servers: str | None = Field(None, validation_alias="KAFKA_BOOTSTRAP_SERVERS")
    keyring_url: str = Field("http://127.0.0.1:8001", validation_alias="KEYRING_URL")
    public_url: str = Field("http://127.0.0.1:8000", validation_alias="PUBLIC_URL")
    jwks_url: str | None = Field(None, validation_alias="JWKS_URL")
    smtp_url: str = Field("smtp://127.0.0.1:1025", validation_alias="SMTP_URL")
    mail_from: str = Field("no-reply@vitrine.example", validation_alias="MAIL_FROM")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", validation_alias="LOG_LEVEL")
    database_pool_size: int = Field(20, ge=1, le=200, validation_alias="DATABASE_POOL_SIZE")
    key_seconds: float = Field(120, gt=0, le=120, validation_alias="KEY_SECONDS")
    """How long opened keys are remembered: so long after its end an erasure is certified, by the same number."""
    store_secret_seconds: float = Field(600, gt=0, le=3600, validation_alias="STORE_SECRET_SECONDS")
    """How long the secrets of stores are remembered: as the keyring has it, which waits so long when one changes."""
    worker_port: int = Field(0, ge=0, le=65535, description="Liveness and metrics of the worker; 0 is off.")

    @field_validator("database_url", "broker_database_url")
    @classmethod
    def _is_postgresql(cls, url: str | None) -> str | None:
        if url is not None:
            PostgresDsn(url)
        return url

    @property
    def issuer(self) -> str:
        """`iss` of every access token."""
        return f"{self.public_url}/identity"

    @property
    def keys_of_identity(self) -> str:
        """Where the public keys of access tokens are published."""
        return self.jwks_url or f"{self.issuer}/v1/jwks.json"
