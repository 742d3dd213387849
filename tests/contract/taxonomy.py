"""Compares the words we declare personal data in with the Fides language, from whose package they are taken.

Run by `make taxonomy`, in an environment of its own: the package wants an older Pydantic than the platform's.
"""

import sys
from collections.abc import Iterable

from fideslang.default_taxonomy import DEFAULT_TAXONOMY  # pyright: ignore[reportMissingImports]
from fideslang.models import LegalBasisForProcessingEnum  # pyright: ignore[reportMissingImports]

from libs.common.personal.vocabulary import Category, LegalBasis, Purpose


def main() -> int:
    """1, and the words that are not Fides', if there are any."""
    unknown = [
        *missing(Category, (one.fides_key for one in DEFAULT_TAXONOMY.data_category)),
        *missing(Purpose, (one.fides_key for one in DEFAULT_TAXONOMY.data_use)),
        *missing(LegalBasis, (one.value for one in LegalBasisForProcessingEnum)),
    ]
    for word in unknown:
        sys.stderr.write(f"{word} is not a word of the Fides language\n")
    sys.stdout.write(f"{len([*Category, *Purpose, *LegalBasis])} words compared, {len(unknown)} unknown\n")
    return 1 if unknown else 0


def missing(ours: Iterable[str], theirs: Iterable[str]) -> list[str]:
    """Those of ours that are not theirs."""
    return sorted(set(ours) - set(theirs))


if __name__ == "__main__":
    sys.exit(main())
