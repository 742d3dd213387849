"""When a request must be answered."""

from calendar import monthrange
from datetime import date


def due_on(verified_on: date) -> date:
    """The last day to answer: one month from verification (GDPR, Art. 12(3)), the same date of the next month or,
    where that month has none, its last day (Regulation 1182/71, Art. 3(2)(c)).
    """
    year, month = divmod(verified_on.year * 12 + verified_on.month, 12)
    month += 1
    return date(year, month, min(verified_on.day, monthrange(year, month)[1]))
