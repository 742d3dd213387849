"""What billing shows: receivables, invoices, the ledger. Lists are stable: new rows come before their first part."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.errors import NotFound, Problem
from libs.common.http import InvalidCursor, decode_cursor, encode_cursor
from libs.common.personal.data import Sealed
from libs.common.personal.vault import KeyDestroyed, KeyRestricted, ToOpen, Vault
from libs.common.personal.vocabulary import Purpose
from services.billing.domain import State
from services.billing.kinds import CorrectedInvoice, InvoiceContact
from services.billing.models import Invoice, InvoiceCorrection, JournalEntry, PostingRow, Receivable

Row = TypeVar("Row")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_MAXIMUM = 2**63 - 1


# --- Receivables -----------------------------------------------------------------------------------------


async def receivable_of(session: AsyncSession, *, store_id: UUID, order_id: UUID) -> Receivable:
    """Raises NotFound."""
    receivable = await session.scalar(
        select(Receivable).where(Receivable.store_id == store_id, Receivable.order_id == order_id)
    )
    if receivable is None:
        raise NotFound
    return receivable


async def receivables(
    session: AsyncSession, *, store_id: UUID, state: State | None, cursor: str | None, limit: int
) -> tuple[Sequence[Receivable], str | None]:
    """The newest orders first, and the cursor of the next part. Raises InvalidCursor."""
    place = tuple_(Receivable.placed_at, Receivable.order_id)
    statement = select(Receivable).where(Receivable.store_id == store_id)
    if state is not None:
        statement = statement.where(Receivable.state == state.value)
    if cursor is not None:
        statement = statement.where(place < _place_in_time(cursor))
    statement = statement.order_by(Receivable.placed_at.desc(), Receivable.order_id.desc()).limit(limit + 1)
    found = (await session.scalars(statement)).all()
    return _part(
        found, limit, lambda last: encode_cursor((last.placed_at - _EPOCH) // _MICROSECOND, last.order_id.hex)
    )


def _place_in_time(cursor: str) -> tuple[datetime, UUID]:
    microseconds, order_id = decode_cursor(cursor, int, str)
    try:
        return _EPOCH + microseconds * _MICROSECOND, UUID(hex=order_id)
    except (ValueError, OverflowError) as error:
        raise InvalidCursor from error


# --- Invoices --------------------------------------------------------------------------------------------


async def invoices(
    session: AsyncSession, *, store_id: UUID, person: tuple[UUID, int] | None, cursor: str | None, limit: int
) -> tuple[Sequence[Invoice], str | None]:
    """The highest numbers first; of one person (subject and generation) when one is named. Raises InvalidCursor."""
    statement = _of_person(select(Invoice).where(Invoice.store_id == store_id), person)
    if cursor is not None:
        statement = statement.where(tuple_(Invoice.year, Invoice.sequence) < _numbers(cursor))
    statement = statement.order_by(Invoice.year.desc(), Invoice.sequence.desc()).limit(limit + 1)
    found = (await session.scalars(statement)).all()
    return _part(found, limit, lambda last: encode_cursor(last.year, last.sequence))


async def invoice(
    session: AsyncSession, *, store_id: UUID, invoice_id: UUID, person: tuple[UUID, int] | None
) -> Invoice:
    """Raises NotFound, for an invoice of another person too."""
    statement = select(Invoice).where(Invoice.store_id == store_id, Invoice.id == invoice_id)
    found = await session.scalar(_of_person(statement, person))
    if found is None:
        raise NotFound
    return found


@dataclass(frozen=True, slots=True, repr=False)
class Sealings:
    """The boxes of an invoice: whom it is for, and what it should say, the newest last."""

    contact: Sealed[InvoiceContact] | None
    corrections: Sequence[InvoiceCorrection]
    waits: bool
    """It was issued while its person was on hold, and has no contact yet."""


@dataclass(frozen=True, slots=True, repr=False)
class Invoiced:
    """Whom an invoice is for, and what it should say; nobody while that is on hold, or once it is erased."""

    contact: InvoiceContact | None
    corrections: Sequence[tuple[datetime, CorrectedInvoice]]
    on_hold: bool


async def sealings_of(session: AsyncSession, invoice: Invoice) -> Sealings:
    """What is to be opened for an invoice."""
    corrections = await session.scalars(
        select(InvoiceCorrection)
        .where(InvoiceCorrection.store_id == invoice.store_id, InvoiceCorrection.invoice_id == invoice.id)
        .order_by(InvoiceCorrection.noted_at, InvoiceCorrection.request_id)
    )
    waits = select(Receivable.order_id).where(
        Receivable.store_id == invoice.store_id,
        Receivable.order_id == invoice.order_id,
        Receivable.contact.is_not(None),
    )
    return Sealings(invoice.contact, corrections.all(), await session.scalar(waits) is not None)


async def opened(vault: Vault, invoice: Invoice, sealings: Sealings) -> Invoiced:
    """Whom an invoice is for. Raises KeyringUnavailable."""
    subject_id = invoice.subject_id
    if sealings.contact is None or subject_id is None:
        return Invoiced(None, [], sealings.waits)
    boxes: list[Sealed[Any]] = [sealings.contact, *(one.box for one in sealings.corrections)]
    outcomes = await vault.open_many(
        [ToOpen(box, invoice.store_id, subject_id) for box in boxes], purpose=Purpose.ACCOUNTING
    )
    for outcome in outcomes:
        if isinstance(outcome, Problem) and not isinstance(outcome, (KeyDestroyed, KeyRestricted)):
            raise outcome
    contact, *corrections = outcomes
    return Invoiced(
        contact if isinstance(contact, InvoiceContact) else None,
        [
            (one.noted_at, correction)
            for one, correction in zip(sealings.corrections, corrections, strict=True)
            if isinstance(correction, CorrectedInvoice)
        ],
        isinstance(contact, KeyRestricted),
    )


def _of_person(statement: Any, person: tuple[UUID, int] | None) -> Any:
    if person is None:
        return statement
    subject_id, generation = person
    return statement.where(Invoice.subject_id == subject_id, Invoice.generation == generation)


# --- The ledger ------------------------------------------------------------------------------------------


async def balances(session: AsyncSession, *, store_id: UUID) -> Sequence[Mapping[str, Any]]:
    """Debit and credit of every account and currency."""
    statement = (
        select(
            PostingRow.account,
            PostingRow.currency,
            func.sum(PostingRow.debit).label("debit"),
            func.sum(PostingRow.credit).label("credit"),
        )
        .where(PostingRow.store_id == store_id)
        .group_by(PostingRow.account, PostingRow.currency)
        .order_by(PostingRow.account, PostingRow.currency)
    )
    return [
        {**row, "debit": int(row["debit"]), "credit": int(row["credit"])}
        for row in (await session.execute(statement)).mappings()
    ]


async def entries(
    session: AsyncSession, *, store_id: UUID, cursor: str | None, limit: int
) -> tuple[Sequence[tuple[JournalEntry, Sequence[PostingRow]]], str | None]:
    """The newest bookings first, each with its postings. Raises InvalidCursor."""
    statement = select(JournalEntry).where(JournalEntry.store_id == store_id)
    if cursor is not None:
        statement = statement.where(tuple_(JournalEntry.year, JournalEntry.number) < _numbers(cursor))
    statement = statement.order_by(JournalEntry.year.desc(), JournalEntry.number.desc()).limit(limit + 1)
    found = (await session.scalars(statement)).all()
    part, following = _part(found, limit, lambda last: encode_cursor(last.year, last.number))
    postings = await _postings(session, store_id, [entry.id for entry in part])
    return [(entry, postings[entry.id]) for entry in part], following


async def _postings(
    session: AsyncSession, store_id: UUID, entry_ids: Sequence[UUID]
) -> Mapping[UUID, Sequence[PostingRow]]:
    statement = (
        select(PostingRow)
        .where(PostingRow.store_id == store_id, PostingRow.entry_id.in_(entry_ids))
        .order_by(PostingRow.entry_id, PostingRow.position)
    )
    postings: dict[UUID, list[PostingRow]] = {entry_id: [] for entry_id in entry_ids}
    for posting in await session.scalars(statement):
        postings[posting.entry_id].append(posting)
    return postings


# --- Parts of lists --------------------------------------------------------------------------------------


def _numbers(cursor: str) -> tuple[int, int]:
    year, number = decode_cursor(cursor, int, int)
    if not (0 <= year <= _MAXIMUM and 0 <= number <= _MAXIMUM):
        raise InvalidCursor
    return year, number


def _part(
    found: Sequence[Row], limit: int, cursor_of: Callable[[Row], str]
) -> tuple[Sequence[Row], str | None]:
    """One row more than asked for was read: it shows whether another part follows."""
    part = found[:limit]
    return part, cursor_of(part[-1]) if len(found) > limit else None
