"""Where a deadline runs: the days that are worked there, and the zone in which they begin."""

from collections.abc import Container
from dataclasses import dataclass
from datetime import date
from functools import cache
from zoneinfo import ZoneInfo

from babel.core import get_global
from holidays import country_holidays

from services.privacy.domain.rights import Law

NOWHERE = "ZZ"
"""A store that this service has not heard of yet: only weekends are known there, in UTC."""
_SATURDAY = 5
_CALIFORNIA = "CA"

_CAPITALS = {
    "AQ": "Antarctica/McMurdo", "AR": "America/Argentina/Buenos_Aires", "AU": "Australia/Sydney",
    "BR": "America/Sao_Paulo", "CA": "America/Toronto", "CD": "Africa/Kinshasa", "CL": "America/Santiago",
    "CN": "Asia/Shanghai", "CY": "Asia/Nicosia", "DE": "Europe/Berlin", "EC": "America/Guayaquil",
    "ES": "Europe/Madrid", "FM": "Pacific/Pohnpei", "GL": "America/Nuuk", "ID": "Asia/Jakarta",
    "KI": "Pacific/Tarawa", "KZ": "Asia/Almaty", "MH": "Pacific/Majuro", "MN": "Asia/Ulaanbaatar",
    "MX": "America/Mexico_City", "MY": "Asia/Kuala_Lumpur", "NZ": "Pacific/Auckland", "PF": "Pacific/Tahiti",
    "PG": "Pacific/Port_Moresby", "PS": "Asia/Hebron", "PT": "Europe/Lisbon", "RU": "Europe/Moscow",
    "UA": "Europe/Kyiv", "UM": "Pacific/Wake", "US": "America/Los_Angeles", "UZ": "Asia/Tashkent",
    "XK": "Europe/Belgrade",
}  # fmt: skip
"""The zone of the capital where a country has several or the CLDR names none; of the United States, California's."""


@dataclass(frozen=True, slots=True)
class Calendar:
    """The working days of a country: neither Saturday, Sunday nor a public holiday (Regulation 1182/71, Art. 2).

    Holidays of a region are worked: the deadline is then a day early, which is never wrong. Of a country that nobody
    has listed only the weekends are known, and `holidays` is None.
    """

    country: str
    zone: ZoneInfo
    holidays: Container[date] | None

    @property
    def knows_holidays(self) -> bool:
        """Whether more than weekends is known."""
        return self.holidays is not None

    def is_working_day(self, day: date) -> bool:
        """Whether a period may end on the day."""
        return day.weekday() < _SATURDAY and (self.holidays is None or day not in self.holidays)


def calendar_for(law: Law, country: str) -> Calendar:
    """That of the store's country (ISO 3166-1 alpha-2); under California's law that of California."""
    return calendar_of("US" if law is Law.CCPA else country)


@cache
def calendar_of(country: str) -> Calendar:
    """That of a country (ISO 3166-1 alpha-2); in UTC if nobody knows its zone.

    The United States count as California does: federal and state holidays, in the zone of Los Angeles.
    """
    return Calendar(country, ZoneInfo(_zone(country)), _holidays(country))


def _holidays(country: str) -> Container[date] | None:
    try:
        return country_holidays(country, subdiv=_CALIFORNIA if country == "US" else None)
    except NotImplementedError:
        # The package says so that it does not know the country; its weekends are known all the same.
        return None


def _zone(country: str) -> str:
    known = get_global("territory_zones").get(country, [])
    return _CAPITALS.get(country) or (known[0] if len(known) == 1 else "UTC")
