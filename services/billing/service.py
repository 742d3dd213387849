"""Billing's commands: what is heard of orders, and the payment that settles one."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import delete, func, insert, select, text
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.db import Database, ring_after_commit
from libs.common.errors import NotFound
from libs.common.events import Received
from libs.common.events.billing import InvoiceIssued, PaymentReceived
from libs.common.events.orders import OrderContact, OrderPlaced
from libs.common.events.privacy import ClockStarted
from libs.common.outbox import publish_all
from libs.common.personal.data import Sealed
from libs.common.personal.holdings import Person
from libs.common.personal.tombstones import Subject, erased_among
from libs.common.personal.vault import KeyDestroyed, KeyRestricted, SubjectErased, Vault
from libs.common.personal.vocabulary import Clock, Purpose, Retention
from libs.common.stores import KnownStore, known_store
from libs.common.worker import Work
from services.billing import domain
from services.billing.domain import Due, EntryKind, Method, Posting, State
from services.billing.kinds import InvoiceContact
from services.billing.models import (
    EarlyOrder,
    Invoice,
    JournalEntry,
    NumberSeries,
    Payment,
    PostingRow,
    Receivable,
)
from services.billing.schemas import NewPayment

# --- What is heard of orders -----------------------------------------------------------------------------

EARLY_ORDERS_KEPT_FOR = timedelta(days=30)
"""An order that has not come by then never will: its person was erased before it came."""

# Whoever hears of an order, and whoever hears the order itself, must see what the other left.
_LOCK = text("SELECT pg_advisory_xact_lock(key) FROM unnest(CAST(:keys AS bigint[])) AS key")


async def expect(session: AsyncSession, events: Sequence[Received[OrderPlaced]]) -> None:
    """Orders were placed: their money is expected, unless more has been heard of them already."""
    orders = {event.data.order_id: event for event in events}
    await _lock(session, orders)
    gone = delete(EarlyOrder).where(EarlyOrder.order_id.in_(orders)).returning(EarlyOrder)
    early = {order.order_id: State(order.state) for order in await session.scalars(gone)}
    rows = [
        _receivable(event, domain.after(State.EXPECTED, early.get(order_id, State.EXPECTED)))
        for order_id, event in orders.items()
    ]
    await session.execute(upsert(Receivable).on_conflict_do_nothing(), rows)


def _receivable(event: Received[OrderPlaced], state: State) -> dict[str, Any]:
    order = event.data
    return {
        "order_id": order.order_id,
        "store_id": event.envelope.store_id,
        "subject_id": order.subject_id,
        "generation": order.generation,
        "number": order.number,
        "state": state.value,
        "amount": order.total.amount,
        "currency": order.total.currency,
        "payment_method": order.payment_method,
        "lines": [line.model_dump(mode="json") for line in order.lines],
        "contact": order.contact if state is not State.VOID else None,
        "placed_at": event.envelope.time,
        "version": 1,
    }


async def hear(session: AsyncSession, store_id: UUID, order_ids: Iterable[UUID], state: State) -> None:
    """Orders says that these are open (confirmed) or void (refused, cancelled), perhaps before `expect`."""
    unknown = set(order_ids)
    await _lock(session, unknown)
    known = (
        select(Receivable)
        .where(Receivable.store_id == store_id, Receivable.order_id.in_(unknown))
        .order_by(Receivable.order_id)
        .with_for_update()
    )
    for receivable in await session.scalars(known):
        unknown.discard(receivable.order_id)
        _move(receivable, domain.after(State(receivable.state), state))
    if unknown:
        early = upsert(EarlyOrder)
        early = early.on_conflict_do_update(
            index_elements=[EarlyOrder.order_id],
            set_={"state": early.excluded.state},
            where=early.excluded.state == State.VOID.value,
        )
        await session.execute(
            early,
            [{"order_id": id_, "store_id": store_id, "state": state.value} for id_ in sorted(unknown)],
        )


def _move(receivable: Receivable, state: State) -> None:
    if state == receivable.state:
        return
    receivable.state = state.value
    receivable.version += 1
    if state in {State.PAID, State.VOID}:
        # Nobody will be invoiced from it any more.
        receivable.contact = None


async def _lock(session: AsyncSession, order_ids: Iterable[UUID]) -> None:
    keys = sorted(int.from_bytes(order_id.bytes[:8], signed=True) for order_id in order_ids)
    await session.execute(_LOCK, {"keys": keys})


async def forget_early_orders(database: Database) -> int:
    """Forget what was heard of orders that never came."""
    async with database.platform_session() as session:
        long_ago = func.now() - EARLY_ORDERS_KEPT_FOR
        gone = await session.scalars(
            delete(EarlyOrder).where(EarlyOrder.heard_at < long_ago).returning(EarlyOrder.order_id)
        )
        return len(gone.all())


# --- The payment -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Buyer:
    """Whom an invoice is for; nobody, or somebody without a contact, once it is erased."""

    person: Subject | None
    contact: Sealed[InvoiceContact] | None
    on_hold: bool = False
    """Their data may not be used at present: the invoice is issued, and gets its contact afterwards."""


async def buyer_of(
    session: AsyncSession, vault: Vault, *, store_id: UUID, order_id: UUID, now: datetime
) -> Buyer:
    """Reseal the contact of an order for its invoice, under the key of this year's accounting.

    Ends the session's transaction before it asks the keyring. Raises NotFound, KeyringUnavailable.
    """
    receivable = await session.scalar(_receivable_of(store_id, order_id))
    if receivable is None:
        raise NotFound
    await session.commit()
    if receivable.subject_id is None:
        return Buyer(None, None)
    person = (store_id, receivable.subject_id, receivable.generation)
    if receivable.contact is None:
        return Buyer(person, None)
    try:
        return Buyer(person, await _resealed(vault, receivable.contact, person, _year(now)))
    except KeyRestricted:
        return Buyer(person, None, on_hold=True)


async def _resealed(
    vault: Vault, box: Sealed[OrderContact], person: Subject, year: int
) -> Sealed[InvoiceContact] | None:
    store_id, subject_id, generation = person
    try:
        contact = await vault.open(box, store_id=store_id, subject_id=subject_id, purpose=Purpose.ACCOUNTING)
        invoiced = InvoiceContact(name=contact.name, address=contact.address)
        sealed = await vault.seal(invoiced, store_id=store_id, subject_id=subject_id, bucket=str(year))
    except (KeyDestroyed, SubjectErased):
        return None
    # Whoever came back after an erasure is a new generation, and what was theirs before stays erased.
    return sealed.box if sealed.generation == generation else None


async def settle(
    session: AsyncSession,
    *,
    store_id: UUID,
    order_id: UUID,
    payment: NewPayment,
    buyer: Buyer,
    recorded_by: UUID,
    now: datetime,
) -> tuple[Payment, Invoice]:
    """Book the payment of an order, issue its invoice, and tell everybody.

    Raises NotFound, NotDueYet, AlreadyPaid, NothingDue, NotTheAmountDue, ImpossibleDay.
    """
    store = await known_store(session, store_id)
    # Held off until this commits, an erasure then finds the invoice; one that came first leaves it without a contact.
    is_erased = buyer.person is None or bool(await erased_among(session, [buyer.person]))
    receivable = await session.scalar(
        _receivable_of(store_id, order_id).with_for_update().execution_options(populate_existing=True)
    )
    if receivable is None:
        raise NotFound
    due = Due(
        State(receivable.state), receivable.due, Method(receivable.payment_method),
        receivable.placed_at.astimezone(UTC).date(),
    )  # fmt: skip
    domain.check_payment(due, payment.amount, received_on=payment.received_on, today=now.date())
    on_hold = receivable.contact if buyer.on_hold and not is_erased else None
    _move(receivable, State.PAID)
    receivable.contact = on_hold
    invoice_sequence, entry_number = await _next_numbers(session, store_id, _year(now))
    booked = _payment(receivable, payment, recorded_by=recorded_by, now=now)
    invoice = _invoice(receivable, store, invoice_sequence, now=now)
    if not is_erased:
        invoice.subject_id, invoice.contact = receivable.subject_id, buyer.contact
    session.add_all([booked, invoice])
    await session.flush()
    await _book(session, booked, invoice, first_number=entry_number)
    events = [*_announced(receivable, booked, invoice), *_clock(invoice)]
    await publish_all(session, events, store_id=store_id, source="billing")
    return booked, invoice


def _receivable_of(store_id: UUID, order_id: UUID) -> Any:
    return select(Receivable).where(Receivable.store_id == store_id, Receivable.order_id == order_id)


async def _next_numbers(session: AsyncSession, store_id: UUID, year: int) -> tuple[int, int]:
    """The next number of an invoice and of its first entry: a rollback gives them back, so no gap is left."""
    asked = {f"invoice/{year}": 1, f"journal/{year}": 2}
    statement = upsert(NumberSeries).values(
        [{"store_id": store_id, "name": name, "last": count} for name, count in asked.items()]
    )
    rows = await session.execute(
        statement.on_conflict_do_update(
            index_elements=[NumberSeries.store_id, NumberSeries.name],
            set_={"last": NumberSeries.last + statement.excluded.last},
        ).returning(NumberSeries.name, NumberSeries.last)
    )
    last = {row.name: row.last for row in rows}
    invoice, entry = (last[name] - count + 1 for name, count in asked.items())
    return invoice, entry


def _payment(receivable: Receivable, payment: NewPayment, *, recorded_by: UUID, now: datetime) -> Payment:
    return Payment(
        id=uuid4(),
        store_id=receivable.store_id,
        order_id=receivable.order_id,
        amount=payment.amount.amount,
        currency=payment.amount.currency,
        method=payment.method.value,
        received_on=payment.received_on,
        external_id=payment.external_id,
        recorded_by=recorded_by,
        booked_at=now,
    )


def _invoice(receivable: Receivable, store: KnownStore, sequence: int, *, now: datetime) -> Invoice:
    year = _year(now)
    return Invoice(
        id=uuid4(),
        store_id=receivable.store_id,
        order_id=receivable.order_id,
        year=year,
        sequence=sequence,
        number=domain.invoice_number(year, sequence),
        generation=receivable.generation,
        seller_name=store.name,
        seller_country=store.country,
        lines=receivable.lines,
        total_amount=receivable.amount,
        currency=receivable.currency,
        issued_at=now,
        kept_until=_kept_until(year),
    )


def _kept_until(year: int) -> date:
    until = Retention.ACCOUNTING.period.expires_on(str(year))
    assert until is not None, "accounting data has a last day"  # noqa: S101
    return until


async def _book(session: AsyncSession, payment: Payment, invoice: Invoice, *, first_number: int) -> None:
    """The sale and the payment, each an entry of two postings."""
    sale = domain.sale(invoice.total)
    receipt = domain.payment(invoice.total, Method(payment.method))
    entries = [
        _entry(invoice, first_number, EntryKind.SALE, invoice.issued_at.date(), invoice_id=invoice.id),
        _entry(invoice, first_number + 1, EntryKind.PAYMENT, payment.received_on, payment_id=payment.id),
    ]
    await session.execute(insert(JournalEntry), entries)
    await session.execute(
        insert(PostingRow),
        [
            row
            for entry, postings in zip(entries, (sale, receipt), strict=True)
            for row in _posting_rows(entry, postings)
        ],
    )


def _entry(
    invoice: Invoice,
    number: int,
    kind: EntryKind,
    occurred_on: date,
    *,
    payment_id: UUID | None = None,
    invoice_id: UUID | None = None,
) -> dict[str, Any]:
    return {
        "id": uuid4(),
        "store_id": invoice.store_id,
        "year": invoice.year,
        "number": number,
        "occurred_on": occurred_on,
        "kind": kind.value,
        "order_id": invoice.order_id,
        "payment_id": payment_id,
        "invoice_id": invoice_id,
        "booked_at": invoice.issued_at,
    }


def _posting_rows(entry: dict[str, Any], postings: Sequence[Posting]) -> list[dict[str, Any]]:
    return [
        {"entry_id": entry["id"], "store_id": entry["store_id"], "position": position, **asdict(posting)}
        for position, posting in enumerate(postings, start=1)
    ]


def _announced(
    receivable: Receivable, payment: Payment, invoice: Invoice
) -> tuple[PaymentReceived, InvoiceIssued]:
    return (
        PaymentReceived(
            order_id=receivable.order_id,
            payment_id=payment.id,
            amount=receivable.due,
            version=receivable.version,
        ),
        InvoiceIssued(
            order_id=receivable.order_id,
            invoice_id=invoice.id,
            number=invoice.number,
            total=invoice.total,
            version=receivable.version,
        ),
    )


def _clock(invoice: Invoice) -> list[ClockStarted]:
    """Whom it is for is kept for as long as the law asks, and that is counted from the end of its year."""
    if invoice.subject_id is None or invoice.contact is None:
        return []
    started = ClockStarted(
        subject_id=invoice.subject_id,
        generation=invoice.generation,
        retention=Retention.ACCOUNTING,
        bucket=str(invoice.year),
        clock=Clock.INVOICE_ISSUED,
        started_at=invoice.issued_at,
    )
    return [started]


def _year(now: datetime) -> int:
    return now.astimezone(UTC).year


# --- Invoices of people on hold --------------------------------------------------------------------------

CHANNEL = "invoices_on_hold"
"""NOTIFY channel: somebody is on hold no more."""
_AT_ONCE = 500


async def complete_soon(session: AsyncSession, _store_id: UUID, _people: Sequence[Person]) -> None:
    """After a restriction was lifted: the invoices issued meanwhile are still without a contact."""
    ring_after_commit(session, CHANNEL)


async def complete_invoices(work: Work) -> int:
    """Put on invoices whom they are for, where that was on hold when they were issued and is not any more."""
    after = UUID(int=0)
    while waiting := await _on_hold(work.database, after):
        for receivable in waiting:
            await _complete(work, receivable)
        after = waiting[-1].order_id
    return 0


async def _on_hold(database: Database, after: UUID) -> Sequence[Receivable]:
    async with database.platform_session() as session:
        waiting = await session.scalars(
            select(Receivable)
            .where(Receivable.state == State.PAID.value, Receivable.contact.is_not(None))
            .where(Receivable.order_id > after)
            .order_by(Receivable.order_id)
            .limit(_AT_ONCE)
        )
        return waiting.all()


async def _complete(work: Work, waiting: Receivable) -> None:
    store_id, order_id = waiting.store_id, waiting.order_id
    if waiting.subject_id is None or waiting.contact is None:
        return
    person = (store_id, waiting.subject_id, waiting.generation)
    async with work.database.session(store_id) as session:
        year = await session.scalar(select(Invoice.year).where(Invoice.order_id == order_id))
    try:
        contact = await _resealed(work.vault, waiting.contact, person, year or _year(waiting.placed_at))
    except KeyRestricted:
        return
    async with work.database.session(store_id) as session:
        is_erased = bool(await erased_among(session, [person]))
        receivable = await session.scalar(_receivable_of(store_id, order_id).with_for_update())
        invoice = await session.scalar(select(Invoice).where(Invoice.order_id == order_id).with_for_update())
        if receivable is None or receivable.contact is None or invoice is None:
            return
        receivable.contact = None
        invoice.contact = None if is_erased else contact
        invoice.version += 1
        await publish_all(session, _clock(invoice), store_id=store_id, source="billing")
