"""Billing's routes: what is owed, payments, invoices, the ledger."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from libs.common.auth import Caller, Manager, Role, Staff, StoreId, of_store
from libs.common.events.orders import OrderLine
from libs.common.http import Cursor, Limit, OpenVault, Page, Session, refusals, set_etag
from libs.common.idempotency import IdempotencyKey, once
from services.billing import queries, service
from services.billing.domain import Account, EntryKind, Method, State
from services.billing.models import Invoice, JournalEntry, Payment, PostingRow, Receivable
from services.billing.schemas import (
    Balance,
    Balances,
    BookedPayment,
    Buyer,
    BuyerCorrection,
    EntryView,
    InvoiceSummary,
    InvoiceView,
    NewPayment,
    PostingView,
    ReceivableView,
    Seller,
)

router = APIRouter(prefix="/stores/{store_id}", tags=["billing"])

OrderId = Annotated[UUID, Path(description="The order.")]
InvoiceId = Annotated[UUID, Path(description="The invoice.")]
StateFilter = Annotated[State | None, Query(description="Only those in this state.")]
Reader = Annotated[Caller, Depends(of_store())]
"""Staff, or a customer, who sees what is their own."""
_NAMES = {account: account.name.lower() for account in Account}


async def now() -> datetime:
    """The clock of every booking, in UTC."""
    return datetime.now(UTC)


Now = Annotated[datetime, Depends(now)]


# --- Orders and their payments ---------------------------------------------------------------------------


@router.post(
    "/orders/{order_id}/payments",
    status_code=201,
    response_model=BookedPayment,
    responses=refusals(401, 403, 404, 409),
)
async def record_payment(
    *,
    request: Request,
    store_id: StoreId,
    order_id: OrderId,
    body: NewPayment,
    caller: Manager,
    vault: OpenVault,
    session: Session,
    moment: Now,
    key: IdempotencyKey = None,
) -> Response:
    """Record that an order was paid in full: it is booked, and its invoice is issued.

    An order is paid once, so sending this again without a key is a 409, never a second booking.
    """
    buyer = await service.buyer_of(session, vault, store_id=store_id, order_id=order_id, now=moment)

    async def settled() -> tuple[BookedPayment, str]:
        payment, invoice = await service.settle(
            session,
            store_id=store_id,
            order_id=order_id,
            payment=body,
            buyer=buyer,
            recorded_by=caller.account_id,
            now=moment,
        )
        return _booked(payment, invoice), f"/billing/v1/stores/{store_id}/invoices/{invoice.id}"

    return await once(session, request, key, store_id=store_id, caller=str(caller.account_id), make=settled)


@router.get("/orders/{order_id}/receivable", responses=refusals(401, 403, 404))
async def get_receivable(
    store_id: StoreId, order_id: OrderId, _caller: Staff, session: Session, response: Response
) -> ReceivableView:
    """What is owed for an order."""
    receivable = await queries.receivable_of(session, store_id=store_id, order_id=order_id)
    set_etag(response, receivable.version)
    return _receivable(receivable)


@router.get("/receivables", responses=refusals(401, 403, 404))
async def list_receivables(
    store_id: StoreId,
    _caller: Staff,
    session: Session,
    state: StateFilter = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[ReceivableView]:
    """What is owed, the newest orders first."""
    found, following = await queries.receivables(
        session, store_id=store_id, state=state, cursor=cursor, limit=limit
    )
    return Page(items=[_receivable(receivable) for receivable in found], next=following)


# --- Invoices --------------------------------------------------------------------------------------------


@router.get("/invoices", responses=refusals(401, 404))
async def list_invoices(
    store_id: StoreId, caller: Reader, session: Session, cursor: Cursor = None, limit: Limit = 50
) -> Page[InvoiceSummary]:
    """The invoices of the store, or of the customer who asks; the newest first."""
    found, following = await queries.invoices(
        session, store_id=store_id, person=_person(caller), cursor=cursor, limit=limit
    )
    return Page(items=[InvoiceSummary(**_summary(invoice)) for invoice in found], next=following)


@router.get("/invoices/{invoice_id}", responses=refusals(401, 404))
async def get_invoice(
    *,
    store_id: StoreId,
    invoice_id: InvoiceId,
    caller: Reader,
    vault: OpenVault,
    session: Session,
    response: Response,
) -> InvoiceView:
    """A whole invoice, with whom it is for as long as the law keeps that."""
    invoice = await queries.invoice(session, store_id=store_id, invoice_id=invoice_id, person=_person(caller))
    sealings = await queries.sealings_of(session, invoice)
    await session.commit()
    invoiced = await queries.opened(vault, invoice, sealings)
    contact = invoiced.contact
    set_etag(response, invoice.version)
    return InvoiceView(
        **_summary(invoice),
        seller=Seller(name=invoice.seller_name, country=invoice.seller_country),
        buyer=Buyer(name=contact.name, address=contact.address) if contact is not None else None,
        corrections=[
            BuyerCorrection(noted_at=noted_at, name=correction.name, address=correction.address)
            for noted_at, correction in invoiced.corrections
        ],
        on_hold=invoiced.on_hold,
        lines=_lines(invoice.lines),
    )


def _person(caller: Caller) -> tuple[UUID, int] | None:
    """Whose invoices a caller sees: a customer's own, and everybody's for staff."""
    return (caller.customer, caller.generation) if caller.role is Role.CUSTOMER else None


# --- The ledger ------------------------------------------------------------------------------------------


@router.get("/ledger/balances", responses=refusals(401, 403, 404))
async def get_balances(store_id: StoreId, _caller: Staff, session: Session) -> Balances:
    """Every account's balance."""
    rows = await queries.balances(session, store_id=store_id)
    return Balances(
        items=[
            Balance(**row, name=_NAMES[Account(row["account"])], balance=row["debit"] - row["credit"])
            for row in rows
        ]
    )


@router.get("/ledger/entries", responses=refusals(401, 403, 404))
async def list_entries(
    store_id: StoreId, _caller: Staff, session: Session, cursor: Cursor = None, limit: Limit = 50
) -> Page[EntryView]:
    """Every booking, the newest first."""
    found, following = await queries.entries(session, store_id=store_id, cursor=cursor, limit=limit)
    return Page(items=[_entry(entry, postings) for entry, postings in found], next=following)


# --- Rows as they are shown ------------------------------------------------------------------------------


def _booked(payment: Payment, invoice: Invoice) -> BookedPayment:
    return BookedPayment(
        id=payment.id,
        order_id=payment.order_id,
        amount=invoice.total,
        method=Method(payment.method),
        received_on=payment.received_on,
        external_id=payment.external_id,
        invoice_id=invoice.id,
        invoice_number=invoice.number,
    )


def _receivable(receivable: Receivable) -> ReceivableView:
    return ReceivableView(
        order_id=receivable.order_id,
        number=receivable.number,
        state=State(receivable.state),
        amount=receivable.due,
        payment_method=Method(receivable.payment_method).value,
        lines=_lines(receivable.lines),
        placed_at=receivable.placed_at,
    )


def _summary(invoice: Invoice) -> dict[str, Any]:
    return {
        "id": invoice.id,
        "number": invoice.number,
        "order_id": invoice.order_id,
        "total": invoice.total,
        "issued_at": invoice.issued_at,
        "kept_until": invoice.kept_until,
    }


def _entry(entry: JournalEntry, postings: Sequence[PostingRow]) -> EntryView:
    return EntryView(
        number=f"{entry.year}-{entry.number}",
        kind=EntryKind(entry.kind),
        occurred_on=entry.occurred_on,
        booked_at=entry.booked_at,
        order_id=entry.order_id,
        payment_id=entry.payment_id,
        invoice_id=entry.invoice_id,
        postings=[
            PostingView(
                account=Account(posting.account),
                currency=posting.currency,
                debit=posting.debit,
                credit=posting.credit,
            )
            for posting in postings
        ],
    )


def _lines(lines: list[dict[str, Any]]) -> list[OrderLine]:
    return [OrderLine.model_validate(line) for line in lines]
