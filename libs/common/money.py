"""Amounts of money: whole minor units (cents) of an ISO 4217 currency, never floats."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field

Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$", examples=["EUR"], description="ISO 4217 code.")]
MAXIMUM = 10**12

_DECIMALS = {
    0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
    3: "BHD IQD JOD KWD LYD OMR TND",
    4: "CLF UYW",
}


def decimals(currency: str) -> int:
    """How many digits of an amount stand after the point: 2 for euros, 0 for yen (ISO 4217, list one)."""
    return next((digits for digits, codes in _DECIMALS.items() if currency in codes.split()), 2)


def as_decimal(amount: int, currency: str) -> str:
    """Minor units as people write them, with a point: 1999 EUR is `19.99`."""
    digits = decimals(currency)
    sign, whole = "-" * (amount < 0), f"{abs(amount):0{digits + 1}d}"
    return f"{sign}{whole[:-digits]}.{whole[-digits:]}" if digits else sign + whole


class CurrencyMismatch(ValueError):
    """Two currencies cannot be added or compared."""


class Money(BaseModel):
    """An amount in minor units: `{"amount": 1999, "currency": "EUR"}` is 19.99 euros."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    amount: Annotated[int, Field(strict=True, ge=-MAXIMUM, le=MAXIMUM, description="Minor units.")]
    currency: Currency

    def __add__(self, other: Self) -> "Money":
        return Money(amount=self.amount + self._same(other).amount, currency=self.currency)

    def __sub__(self, other: Self) -> "Money":
        return Money(amount=self.amount - self._same(other).amount, currency=self.currency)

    def __mul__(self, quantity: int) -> "Money":
        return Money(amount=self.amount * quantity, currency=self.currency)

    def _same(self, other: Self) -> Self:
        if other.currency != self.currency:
            raise CurrencyMismatch
        return other
