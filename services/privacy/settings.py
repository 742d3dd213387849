"""Settings of the privacy service: `PRIVACY_DATABASE_URL`, `PRIVACY_SERVICE_KEY`, `PRIVACY_MASTER_KEY` and what all
share.
"""

from functools import cache
from pathlib import Path
from typing import Any

from pydantic import Field, IPvAnyNetwork, SecretStr
from pydantic_settings import SettingsConfigDict

from libs.common.events.privacy import ParticipantName
from libs.common.settings import MasterKey, ServiceSettings


class Settings(ServiceSettings):
    """What the engine needs to know of the platform it works for."""

    model_config = SettingsConfigDict(env_prefix="PRIVACY_")

    participants: frozenset[ParticipantName] = frozenset(
        {"catalog", "orders", "identity", "billing", "privacy"}
    )
    """Who must answer every request, announced or not: a service that has not started yet is waited for."""
    answer_step: float = Field(
        0.25, ge=0.01, le=5, description="Seconds; anonymous forms are answered at its multiples."
    )
    forms_per_address: int = Field(30, ge=1, description="Anonymous forms per client address in an hour.")
    mails_per_person: int = Field(
        5, ge=1, description="Forms that cause a mail, per e-mail address in an hour; more cause none."
    )
    proofs_per_address: int = Field(
        3000, ge=1, description="Questions to evidence logs per client address in an hour."
    )
    evidence_years: int = Field(
        5, ge=1, description="How long the evidence log keeps what its entries say; their hashes stay."
    )
    keyring_backup_days: int = Field(
        7,
        ge=0,
        validation_alias="KEYRING_BACKUP_DAYS",
        description="How long a backup of the keyring is kept; certificates name the day on which the last lapses.",
    )
    master_key: MasterKey
    """Wraps the secrets that are shared with recipients outside."""
    outgoing_networks: list[IPvAnyNetwork] = Field(
        [],
        description="JSON list: networks of your own that recipients may be in although they are not public.",
    )
    outgoing_http: bool = Field(False, description="Whether recipients may be named with http.")
    outgoing_authorities: Path | None = Field(
        None, description="A PEM file of certificate authorities of your own."
    )
    opendsr_key: SecretStr | None = Field(
        None, description="RSA, PEM: signs what is answered over OpenDSR. Without it that is not spoken."
    )
    opendsr_certificate: str | None = Field(
        None, description="PEM: of that key, for the host of PUBLIC_URL, and those up to its authority."
    )
    opendsr_authorities: str | None = Field(
        None, description="PEM: who may have certified outside processors, instead of the public authorities."
    )
    service_keys: dict[str, dict[str, Any]] = Field({}, validation_alias="SERVICE_KEYS")
    """The public ES256 JWK of each service; a participant named here can announce no other key."""


@cache
def present() -> Settings:
    """The settings of this process, for handlers, which are given events and nothing else."""
    return Settings.model_validate({})
