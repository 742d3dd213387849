"""What is on its way outside, as figures: by protocol and state, of no store and nobody."""

from itertools import product

from sqlalchemy import text

from libs.common.telemetry import is_kept, meter
from libs.common.worker import Work
from services.privacy.recipients.speaking import PROTOCOLS
from services.privacy.recipients.words import DeliveryState

_open = meter.create_gauge(
    "privacy.deliveries.open", description="Deliveries outside that are not over, by where they are."
)
_age = meter.create_gauge("privacy.deliveries.age", unit="s", description="Age of the oldest of them.")
_WAITING = (DeliveryState.COLLECTING, DeliveryState.SENDING, DeliveryState.RECEIVED, DeliveryState.STUCK)
_COUNT = text("""
    SELECT protocol, delivery.state, count(*) AS number, extract(epoch FROM now() - min(made_at))::float8 AS age
    FROM delivery JOIN recipient ON recipient.id = recipient_id
    WHERE delivery.state IN ('collecting', 'sending', 'received', 'stuck') AND what <> 'test' GROUP BY 1, 2
""")


async def measure(work: Work) -> int:
    """Deliveries that are not over; 0 is told, or the last would stay."""
    if not is_kept():
        return 0
    async with work.database.platform_session() as session:
        found = {(row.protocol, row.state): row for row in await session.execute(_COUNT)}
    for protocol, state in product(PROTOCOLS, _WAITING):
        row = found.get((protocol, state))
        _open.set(row.number if row else 0, {"protocol": protocol, "state": state})
        _age.set(row.age if row else 0, {"protocol": protocol, "state": state})
    return 0
