"""Parts of what is fetched: the Range and If-Range of RFC 9110, sections 13 and 14."""

import re
from dataclasses import dataclass

from libs.common.errors import Problem

_ONE = re.compile(r"bytes=\s*(\d{0,19})-(\d{0,19})\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Part:
    """The bytes from `first` up to and including `last`."""

    first: int
    last: int

    @property
    def size(self) -> int:
        """In bytes."""
        return self.last - self.first + 1


class RangeNotSatisfiable(Problem):
    """416: there is nothing there. `Content-Range` says how much there is."""

    status = 416
    slug = "range-not-satisfiable"
    title = "The archive has no such part"
    detail = "Ask for a part that begins before its end; Content-Range says how long it is."


def wanted(range_: str | None, if_range: str | None, *, size: int, etag: str) -> Part | None:
    """The part that was asked for; None for the whole, which also answers what is not understood.

    Several ranges are answered with the whole, as the RFC allows. Raises RangeNotSatisfiable.
    """
    if range_ is None or (if_range is not None and if_range.strip() != etag):
        return None
    found = _ONE.fullmatch(range_)
    if found is None or found.groups() == ("", ""):
        return None
    first, last = found.groups()
    if not first:
        part = Part(max(0, size - int(last)), size - 1)
    else:
        if last and int(last) < int(first):
            return None
        part = Part(int(first), min(int(last), size - 1) if last else size - 1)
    if part.size <= 0:
        raise RangeNotSatisfiable(headers={"Content-Range": f"bytes */{size}"})
    return part
