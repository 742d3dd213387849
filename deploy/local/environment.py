"""The environment variables of the whole platform on one machine.

What the operator has set wins; what is missing is made once and kept in `secrets.json` of the data folder.
"""

import base64
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path

from joserfc.jwk import ECKey

from deploy.local.authority import certified
from deploy.local.databases import NAMES
from deploy.local.secret_file import SecretFile

SERVICES = ("catalog", "orders", "identity", "billing", "privacy")


_DATABASES = tuple(
    f"{name.upper()}_{kind}" for name in NAMES for kind in ("DATABASE_URL", "MIGRATION_DATABASE_URL")
)


def needs_postgres() -> bool:
    """Whether any database of the platform is not on an operator's own server."""
    return any(f"{name.upper()}_DATABASE_URL" not in os.environ for name in NAMES)


def complete(variables: Mapping[str, str]) -> dict[str, str]:
    """These variables, overruled by what the operator has set.

    Migrations of an operator's database run as its application user unless a variable names an owner.
    """
    theirs = {name: os.environ[name] for name in (*variables, *_DATABASES) if name in os.environ}
    complete = {**variables, **theirs}
    for name in map(str.upper, NAMES):
        owner = f"{name}_MIGRATION_DATABASE_URL"
        if f"{name}_DATABASE_URL" in theirs and owner not in theirs:
            complete[owner] = theirs[f"{name}_DATABASE_URL"]
    return complete


def keys(data: Path) -> dict[str, str]:
    """`ORDERS_SERVICE_KEY` … (private ES256 JWKs), `SERVICE_KEYS` (the public ones), the master keys, and the key and
    certificate for OpenDSR.
    """
    file = SecretFile(data / "secrets.json")
    private = {service: file.get(f"{service}_service_key", _service_key) for service in SERVICES}
    public = {service: _public(key) for service, key in private.items()}
    opendsr: Mapping[str, str] = json.loads(file.get("opendsr", certified))
    return {f"{service.upper()}_SERVICE_KEY": key for service, key in private.items()} | {
        "SERVICE_KEYS": json.dumps(public),
        "KEYRING_MASTER_KEY": file.get("keyring_master_key", _master_key),
        "IDENTITY_MASTER_KEY": file.get("identity_master_key", _master_key),
        "PRIVACY_MASTER_KEY": file.get("privacy_master_key", _master_key),
        "PRIVACY_OPENDSR_KEY": opendsr["key"],
        "PRIVACY_OPENDSR_CERTIFICATE": opendsr["certificate"],
        "PRIVACY_OPENDSR_AUTHORITIES": opendsr["authority"],
    }


def _service_key() -> str:
    return json.dumps(ECKey.generate_key("P-256", auto_kid=True).as_dict(private=True))


def _public(private: str) -> Mapping[str, object]:
    return ECKey.import_key(json.loads(private)).as_dict(private=False)


def _master_key() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode()


_SHARED = (
    "BROKER", "BROKER_DATABASE_URL", "KAFKA_BOOTSTRAP_SERVERS", "KEYRING_URL", "PUBLIC_URL", "SERVICE_KEYS", "SMTP_URL",
)  # fmt: skip


def for_process(platform: Mapping[str, str], owners: Sequence[str]) -> dict[str, str]:
    """The environment of one process: ours, what all share, and the variables of these owners alone.

    No process gets the secrets of another service, and none those of the owner of a database.
    """
    inherited = {name: value for name, value in os.environ.items() if name not in platform}
    prefixes = tuple(f"{owner.upper()}_" for owner in owners)
    own = {
        name: value
        for name, value in platform.items()
        if name in _SHARED or (name.startswith(prefixes) and not name.endswith("_MIGRATION_DATABASE_URL"))
    }
    return inherited | own
