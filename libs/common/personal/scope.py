"""What an erasure is of: everything, what is used for one purpose, or what is of one category."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from libs.common.personal.data import PersonalData, categories
from libs.common.personal.holdings import Holding, OnErase
from libs.common.personal.vocabulary import Category, Purpose


class Scope(NamedTuple):
    """None means any; both named, what is of the category and used for the purpose."""

    purpose: Purpose | None = None
    category: Category | None = None

    @property
    def is_whole(self) -> bool:
        """Whether it is everything."""
        return self == WHOLE

    def concerned(self, holdings: Iterable[Holding]) -> list[Holding]:
        """The holdings with something in the scope."""
        return [one for one in holdings if one.is_about(self.purpose, self.category)]

    def removes(self, holding: Holding) -> bool:
        """Whether the rows go: their kind is used for nothing but the purpose, and no law keeps them."""
        return (
            self.category is None
            and self._is_all(holding)
            and not holding.kept_by_law
            and holding.on_erase is not OnErase.KEEP
        )

    def empties(self, kind: type[PersonalData]) -> Mapping[str, Any]:
        """The optional fields of the category, and what they say when they say nothing."""
        if self.purpose is not None and set(kind.purposes) != {self.purpose}:
            return {}
        return {
            name: one.get_default(call_default_factory=True)
            for name, one in kind.model_fields.items()
            if not one.is_required() and self._has(kind, name)
        }

    def leaves(self, holding: Holding) -> bool:
        """Whether something of the scope stays: it is used for something else too, or required."""
        if holding.kind is None or not holding.exported or not holding.is_about(self.purpose, self.category):
            return False
        if self.category is None:
            return not self.removes(holding)
        within = {name for name in holding.kind.model_fields if self._has(holding.kind, name)}
        return bool(within - self.empties(holding.kind).keys())

    def _is_all(self, holding: Holding) -> bool:
        return holding.kind is not None and set(holding.kind.purposes) == {self.purpose}

    def _has(self, kind: type[PersonalData], name: str) -> bool:
        return self.category is not None and any(
            self.category.includes(one) for one in categories(kind.model_fields[name])
        )


WHOLE = Scope()
"""Everything."""
