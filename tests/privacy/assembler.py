"""A process that makes the archives that wait, as the privacy worker does; started by tests that kill or measure it.

python -m tests.privacy.assembler kill 3      # dies like kill -9 when it would keep its third piece
python -m tests.privacy.assembler measure 0   # prints how much its memory grew, in bytes
"""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from libs.common.db import Database
from libs.common.personal.vault import Vault
from libs.common.worker import Work
from services.privacy import assembling
from services.privacy.app import create_app
from services.privacy.settings import present


def memory(pid: int | str, name: str) -> int:
    """`VmRSS` (now) or `VmHWM` (the most there ever was) of a process, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    lines = dict(line.split(":", 1) for line in status.splitlines())
    return int(lines[name].split()[0]) * 1024


def arm(pieces: int) -> None:
    keep = assembling._keep  # pyright: ignore[reportPrivateUsage]

    async def keep_until(work: Work, claimed: Any, sequence: int, content: bytes) -> None:
        if sequence == pieces - 1:
            os.kill(os.getpid(), signal.SIGKILL)
        await keep(work, claimed, sequence, content)

    assembling._keep = keep_until  # pyright: ignore[reportPrivateUsage]


async def main(mode: str, number: int) -> None:
    settings = present()
    async with httpx.AsyncClient(timeout=5) as http:
        database = Database(settings.database_url, pool_size=2)
        vault = Vault.connect(service="privacy", settings=settings, http=http)
        work = Work("privacy", settings, database, None, vault, http)  # type: ignore[arg-type]
        if mode == "kill":
            arm(number)
        async with database.platform_session() as session:
            await session.connection()
        before = memory("self", "VmRSS")
        while await assembling.assemble(work):
            pass
        print(json.dumps({"grew": memory("self", "VmHWM") - before}))
        await database.close()


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        uvicorn.run(create_app(present()), port=int(sys.argv[2]), log_config=None)
    else:
        asyncio.run(main(sys.argv[1], int(sys.argv[2])))
