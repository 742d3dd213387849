"""Standard Webhooks (https://www.standardwebhooks.com): how deliveries are signed, and how answers to them are."""

import base64
import hmac
import secrets
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from standardwebhooks import Webhook

from services.privacy.domain.problems import NotSigned

ID, TIMESTAMP, SIGNATURE = "webhook-id", "webhook-timestamp", "webhook-signature"
TOLERANCE = timedelta(minutes=5)
"""Between the clock of whoever signed and ours."""
_PREFIX = "whsec_"
_SECRET_BYTES = 32


def new_secret() -> str:
    """A secret, as Standard Webhooks writes them."""
    return _PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def signed(message_id: str, content: bytes, given: Sequence[str], *, now: datetime) -> dict[str, str]:
    """The headers of a message. Signed with every secret, so that either side may change it first."""
    text = content.decode()
    made = [Webhook(secret).sign(message_id, now.astimezone(UTC), text) for secret in given]
    return {ID: message_id, TIMESTAMP: str(int(now.timestamp())), SIGNATURE: " ".join(made)}


def check(
    headers: Mapping[str, str], message_id: str, content: bytes, given: Iterable[str], *, now: datetime
) -> None:
    """Raises NotSigned unless one of the secrets signed exactly this, for this message, a moment ago."""
    try:
        at = datetime.fromtimestamp(int(headers.get(TIMESTAMP, "")), tz=UTC)
        text = content.decode()
    except (ValueError, OverflowError, OSError):
        raise NotSigned from None
    if headers.get(ID) != message_id or abs(now - at) > TOLERANCE:
        raise NotSigned
    expected = [Webhook(secret).sign(message_id, at, text).encode() for secret in given]
    signatures = headers.get(SIGNATURE, "").encode("latin-1", "replace").split()
    if not any(hmac.compare_digest(one, other) for one in expected for other in signatures):
        raise NotSigned
