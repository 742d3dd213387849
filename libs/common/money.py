"""Amounts of money: whole minor units (cents) of an ISO 4217 currency, never floats."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field

Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$", examples=["EUR"], description="ISO 4217 code.")]
MAXIMUM = 10**12


class CurrencyMismatch(ValueError):
    """Two currencies cannot be added or compared."""


class Money(BaseModel):
    """An amount in minor units: `{"amount": 1999, "currency": "EUR"}` is 19.99 euros."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    amount: Annotated[int, Field(ge=-MAXIMUM, le=MAXIMUM, description="Minor units.")]
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
