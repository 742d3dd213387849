"""`make rewrap`: whatever lies under an older master key is wrapped by the present one, while keyrings go on working.

Reads what the keyring reads: `KEYRING_DATABASE_URL`, `KEYRING_MASTER_KEY`, `KEYRING_OLD_MASTER_KEYS`. It may be killed
at any moment and run again.
"""

import asyncio
import sys
from collections.abc import Callable

from libs.common.db import Database
from services.privacy.keyring.master_keys import MasterKeys
from services.privacy.keyring.service.rewrapping import MasterKeyUnknown, check_master_keys, counted, rewrap
from services.privacy.keyring.settings import KeyringSettings

_PASSES = 20
"""A keyring that was not told of the new key yet makes rows under the old one; each pass meets those of the last."""


async def run(keyring: Database, master_keys: MasterKeys, *, say: Callable[[str], None]) -> int:
    """Rewrap until nothing is left, and return how many rows still lie under an older key. Raises MasterKeyUnknown."""
    await check_master_keys(keyring, master_keys)
    say(f"Wrapping by the present master key, {master_keys.present_id} …")
    left = await _left(keyring, master_keys)
    for _ in range(_PASSES):
        if not left:
            break
        async for done in rewrap(keyring, master_keys):
            say(f"  {done} of {max(done, left)}")
        left = await _left(keyring, master_keys)
    return left


async def _left(keyring: Database, master_keys: MasterKeys) -> int:
    numbers = await counted(keyring)
    return sum(number for name, number in numbers.items() if name != master_keys.present_id)


async def _main(settings: KeyringSettings) -> int:
    keyring = Database(settings.database_url, pool_size=1)
    master_keys = MasterKeys(
        settings.master_key.get_secret_value(), [key.get_secret_value() for key in settings.old_master_keys]
    )
    try:
        return await run(keyring, master_keys, say=lambda line: print(line, flush=True))  # noqa: T201 - a command
    finally:
        await keyring.close()


def main() -> None:
    """Rewrap what the environment names."""
    try:
        left = asyncio.run(_main(KeyringSettings.model_validate({})))
    except MasterKeyUnknown as error:
        sys.exit(str(error))
    if left:
        sys.exit(
            f"{left} keys and secrets still lie under an older master key: a keyring goes on using it as its present "
            "one. Give every keyring the new one, then run this again. Do not destroy the old key yet."
        )
    print(  # noqa: T201 - a command
        "Nothing lies under an older master key: no keyring needs one any more. Backups of the keyring that were made "
        "before this moment do; keep the old key apart until the last of them has lapsed."
    )


if __name__ == "__main__":
    main()
