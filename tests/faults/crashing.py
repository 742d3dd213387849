"""A worker that kills itself, as `kill -9` would, the n-th time it comes to a named point.

    python -m tests.faults.crashing orders after-acknowledgement 3

The worker is the real one; only where it dies is put in from outside.
"""

import os
import runpy
import signal
import sys
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, event
from sqlalchemy.engine import Engine

from libs.common.broker import Record
from libs.common.broker.kafka import KafkaBroker
from libs.common.broker.postgres import EmbeddedBroker
from libs.common.broker.turns import Delivery
from libs.common.worker import Worker

POINTS = (
    "before-commit",
    "after-commit",
    "before-send",
    "after-acknowledgement",
    "before-mark",
    "after-mark",
    "in-handler",
    "before-offset-commit",
    "after-offset-commit",
    "in-shutdown",
)


class Fuse:
    """Counts the times one point is reached."""

    def __init__(self, point: str, times: int) -> None:
        self.point = point
        self.left = times

    def reached(self, point: str) -> None:
        """Die if this is the point and its time has come."""
        if point == self.point:
            self.left -= 1
            if self.left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)


def arm(fuse: Fuse) -> None:
    """Put the fuse into every place that a point names."""
    _arm_database(fuse)
    _arm_broker(fuse, EmbeddedBroker)
    _arm_broker(fuse, KafkaBroker)
    commit = Delivery.commit

    async def commit_offset(delivery: Delivery) -> None:
        fuse.reached("before-offset-commit")
        await commit(delivery)
        fuse.reached("after-offset-commit")

    Delivery.commit = commit_offset  # type: ignore[method-assign]
    stop = Worker.stop

    def stop_worker(worker: Worker) -> None:
        stop(worker)
        fuse.reached("in-shutdown")

    Worker.stop = stop_worker  # type: ignore[method-assign]


def _arm_broker(fuse: Fuse, adapter: type[Any]) -> None:
    publish = adapter.publish

    async def publish_records(broker: Any, records: Sequence[Record]) -> None:
        fuse.reached("before-send")
        await publish(broker, records)
        fuse.reached("after-acknowledgement")

    adapter.publish = publish_records


def _arm_database(fuse: Fuse) -> None:
    """A handler's transaction is the one that has claimed an event in the inbox."""

    def before(connection: Connection, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.lstrip().startswith("UPDATE outbox SET sent_at"):
            fuse.reached("before-mark")
        if connection.info.get("claimed"):
            fuse.reached("in-handler")

    def after(connection: Connection, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.lstrip().startswith("INSERT INTO inbox"):
            connection.info["claimed"] = True
        if statement.lstrip().startswith("UPDATE outbox SET sent_at"):
            fuse.reached("after-mark")

    def commit(connection: Connection) -> None:
        if connection.info.get("claimed"):
            fuse.reached("before-commit")

    def checkin(_connection: Any, record: Any) -> None:
        if record.info.pop("claimed", False):
            fuse.reached("after-commit")

    event.listen(Engine, "before_cursor_execute", before)
    event.listen(Engine, "after_cursor_execute", after)
    event.listen(Engine, "commit", commit)
    event.listen(Engine, "checkin", checkin)


def main() -> None:
    """`service point times`."""
    service, point, times = sys.argv[1:]
    if point not in POINTS:
        raise SystemExit(f"no such point: {point}")
    arm(Fuse(point, int(times)))
    sys.argv = [service]
    runpy.run_module(f"services.{service}.worker", run_name="__main__")


if __name__ == "__main__":
    main()
