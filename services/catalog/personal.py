"""What catalog keeps about people: nothing. Browsing needs no account, and of an order it knows the id."""

from collections.abc import Sequence

from libs.common.personal.holdings import Holding

HOLDINGS: Sequence[Holding] = ()
