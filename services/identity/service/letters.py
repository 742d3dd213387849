"""Letters to people who have an account, in their language."""

from datetime import date
from typing import Any

from babel.dates import format_date

from libs.common.mail import Letter
from libs.common.personal.data import Sealed
from libs.common.personal.vault import Vault
from libs.common.personal.vocabulary import Purpose
from services.identity.kinds import Profile
from services.identity.models import Account


async def profile_of(vault: Vault, account: Account) -> Profile:
    """What the account says of its person, for what they did themselves: also while it is on hold.

    Raises KeyDestroyed, KeyringUnavailable.
    """
    return await vault.open(
        account.profile,
        store_id=account.store_id,
        subject_id=account.subject_id,
        purpose=Purpose.RIGHTS_OF_THE_PERSON,
    )


async def letter_to(
    vault: Vault,
    account: Account,
    template: str,
    *,
    days: dict[str, date | None] | None = None,
    **values: str,
) -> Sealed[Letter]:
    """A sealed letter; `days` are written as people write them.

    Raises KeyDestroyed, SubjectErased, KeyringUnavailable.
    """
    profile = await profile_of(vault, account)
    written = {
        name: format_date(one, format="long", locale=profile.language) if one is not None else ""
        for name, one in (days or {}).items()
    }
    letter = Letter(
        to=profile.email, template=template, language=profile.language, values={**values, **written}
    )
    sealed = await vault.seal(letter, store_id=account.store_id, subject_id=account.subject_id)
    return sealed.box


def person(account: Account) -> dict[str, Any]:
    """Whose a letter is, as `mail.post` takes it."""
    return {
        "store_id": account.store_id,
        "subject_id": account.subject_id,
        "generation": account.generation,
    }
