"""A worker that is killed or frozen the n-th time it comes to a named point, as `kill -9` and `kill -STOP` would.

    python -m tests.faults.crashing orders after-acknowledgement 3 KILL

The worker is the real one. From outside come where it dies, shorter times (a silent member of a group and a silent
transaction are given up after seconds), and an effect of every event that no second handling would leave unseen.
"""

import os
import runpy
import signal
import sys
from collections.abc import Sequence
from datetime import timedelta
from importlib import import_module
from typing import Any

from sqlalchemy import event, text
from sqlalchemy.engine import Engine
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from libs.common import outbox
from libs.common.broker import Record
from libs.common.broker.kafka import KafkaBroker
from libs.common.broker.postgres import EmbeddedBroker
from libs.common.broker.turns import Delivery
from libs.common.inbox import Handlers, batched
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
SOUND = "nowhere"
"""The point of a worker that is left alone."""
BURNT = "the fuse burnt at"
"""The last words of a worker that did not end by accident."""
SILENCE = 3.0
"""Seconds after which a member, a transaction, or who has taken up a piece of work and says nothing, is given up."""
_LEASES = {
    "libs.common.mail": ("_LEASE", timedelta(seconds=SILENCE)),
    "libs.common.personal.jobs": ("_LEASE_SECONDS", SILENCE),
    "services.privacy.key_tasks": ("_LEASE_SECONDS", SILENCE),
    "services.privacy.endings": ("_LEASE_SECONDS", SILENCE),
    "services.privacy.assembling": ("_LEASE_SECONDS", SILENCE),
    "services.privacy.letters": ("_LEASE_SECONDS", SILENCE),
    "services.privacy.recipients.deliveries": ("LEASE", timedelta(seconds=SILENCE)),
    "services.privacy.recipients.schedule": ("PAUSES", [timedelta(seconds=1)] * 60),
}
"""What is leased while it is done: letters, exports, archives, questions to the keyring, keys that are to go, what is
sent outside; and when that is tried again."""


class Fuse:
    """Counts the times one point is reached, and sends the signal once."""

    def __init__(self, point: str, times: int, wanted: signal.Signals) -> None:
        self.point = point
        self.left = times
        self.signal = wanted

    def reached(self, point: str) -> None:
        """Die, or freeze, if this is the point and its time has come."""
        if point == self.point:
            self.left -= 1
            if self.left == 0:
                os.write(sys.stderr.fileno(), f"{BURNT} {point}\n".encode())
                os.kill(os.getpid(), self.signal)


def hurry(service: str) -> None:
    """Shorten what the silent are given."""
    for module, (name, lease) in _LEASES.items():
        if module.startswith(("libs.", f"services.{service}.")):
            assert hasattr(import_module(module), name)
            setattr(import_module(module), name, lease)
    for broker, name in ((EmbeddedBroker, "lease_seconds"), (KafkaBroker, "session_seconds")):
        defaults = broker.__init__.__kwdefaults__ or {}
        assert name in defaults
        defaults[name] = SILENCE

    def give_up_soon(_dialect: Any, _record: Any, _arguments: Any, given: dict[str, Any]) -> None:
        limits = {
            "idle_in_transaction_session_timeout": f"{SILENCE}s",
            "transaction_timeout": f"{3 * SILENCE}s",
        }
        assert limits.keys() <= given["server_settings"].keys()
        given["server_settings"] |= limits

    event.listen(Engine, "do_connect", give_up_soon)


def arm(fuse: Fuse) -> None:
    """Put the fuse into every place that a point names."""
    _arm_handlers(fuse)
    _arm_relay(fuse)
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


def _arm_handlers(fuse: Fuse) -> None:
    """Every handler writes down each event, in its own transaction: twice handled is then twice written."""
    begin = Worker.__init__

    def begin_with_witness(
        worker: Worker, work: Any, *, handlers: Handlers, duties: Sequence[Any] = ()
    ) -> None:
        witnessed = {kind: _witnessed(handler, fuse) for kind, handler in handlers.items()}
        begin(worker, work, handlers=witnessed, duties=duties)

    Worker.__init__ = begin_with_witness  # type: ignore[method-assign]

    def before_commit(session: Session) -> None:
        if session.info.get("handles"):
            fuse.reached("before-commit")

    def after_commit(session: Session) -> None:
        if session.info.get("handles"):
            fuse.reached("after-commit")

    event.listen(Session, "before_commit", before_commit)
    event.listen(Session, "after_commit", after_commit)


def _witnessed(handler: Any, fuse: Fuse) -> Any:
    async def handle(session: AsyncSession, given: Any) -> None:
        session.info["handles"] = True
        events = given if hasattr(handler, "batched") else [given]
        await session.execute(_EFFECT, [{"event_id": event.envelope.id} for event in events])
        await handler(session, given)
        await session.flush()
        fuse.reached("in-handler")

    return batched(handle) if hasattr(handler, "batched") else handle


_EFFECT = text("INSERT INTO effect (event_id) VALUES (:event_id)")


def _arm_relay(fuse: Fuse) -> None:
    fetch, mark = outbox.fetch, outbox._MARK  # pyright: ignore[reportPrivateUsage]

    async def fetch_or_mark(session: AsyncSession, query: str, *arguments: object) -> Any:
        if query is mark:
            fuse.reached("before-mark")
        found = await fetch(session, query, *arguments)
        if query is mark:
            fuse.reached("after-mark")
        return found

    outbox.fetch = fetch_or_mark


def _arm_broker(fuse: Fuse, adapter: type[Any]) -> None:
    publish = adapter.publish

    async def publish_records(broker: Any, records: Sequence[Record]) -> None:
        fuse.reached("before-send")
        await publish(broker, records)
        fuse.reached("after-acknowledgement")

    adapter.publish = publish_records


def main() -> None:
    """`service point times signal`."""
    service, point, times, wanted = sys.argv[1:]
    if point not in (*POINTS, SOUND):
        raise SystemExit(f"no such point: {point}")
    hurry(service)
    arm(Fuse(point, int(times), signal.Signals[f"SIG{wanted}"]))
    sys.argv = [service]
    runpy.run_module(f"services.{service}.worker", run_name="__main__")


if __name__ == "__main__":
    main()
