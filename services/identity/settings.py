"""Identity's settings: `IDENTITY_DATABASE_URL`, `IDENTITY_SERVICE_KEY`, `IDENTITY_MASTER_KEY` and what all share."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from libs.common.settings import MasterKey, ServiceSettings, key_bytes


class Settings(ServiceSettings):
    """Bounds on attempts are per window; see `throttle.py` for what is counted."""

    model_config = SettingsConfigDict(env_prefix="IDENTITY_")

    master_key: MasterKey
    """Wraps the private keys that sign access tokens."""
    hashing_threads: int = Field(2, ge=1, le=64, description="Passwords hashed at the same time.")
    hashing_queue: int = Field(64, ge=1, le=10_000, description="Passwords that may wait; more answer 503.")
    answer_step: float = Field(
        0.25, ge=0.01, le=5, description="Seconds; failures are answered at its multiples, see `pace.py`."
    )
    sign_ins_per_account: int = Field(10, ge=1, description="Failed sign-ins per account in 15 minutes.")
    sign_ins_per_address: int = Field(
        200, ge=1, description="Failed sign-ins per client address in 15 minutes."
    )
    sign_ups_per_address: int = Field(500, ge=1, description="Sign-ups per client address in an hour.")
    store_grace_days: int = Field(
        30, ge=0, le=365, description="How long a closed store can be opened again by its owner."
    )
    mails_per_person: int = Field(
        5, ge=1, description="Mails per e-mail address in an hour, and further addresses an account adds."
    )

    @property
    def master_key_bytes(self) -> bytes:
        """The master key itself."""
        return key_bytes(self.master_key)
