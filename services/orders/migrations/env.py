# pyright: reportUnusedImport=false
from libs.common import idempotency, inbox, mail, outbox, stores  # noqa: F401 - their tables
from libs.common.db import Base as Common
from libs.common.migrations import run
from libs.common.personal import jobs, restrictions, tombstones  # noqa: F401 - their tables
from services.orders.models import Base

run(Common.metadata, Base.metadata)
