"""The routes of every service: who may call each, and a call that is right in everything a test does not change."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from deploy.local.environment import SERVICES
from libs.common.auth import MANAGERS, PLATFORM_STORE, STAFF, Role
from tests.contract.house import ADDRESS, Furnished, House, Person
from tests.tokens import authorization

Route = tuple[str, str]
"""Method and path."""

PAGES: frozenset[Route] = frozenset(
    ("GET", f"/{service}/{page}")
    for service in SERVICES
    for page in (
        *("docs", "docs/swagger-ui.css", "docs/swagger-ui-bundle.js", "docs/favicon-32x32.png"),
        *("openapi.json", "healthz/live", "healthz/ready"),
    )
)
PUBLIC: frozenset[Route] = PAGES | {
    ("GET", "/catalog/v1/stores/{store_id}/products"),
    ("GET", "/catalog/v1/stores/{store_id}/facets"),
    ("GET", "/catalog/v1/stores/{store_id}/products/by-handle/{handle}"),
    ("GET", "/catalog/v1/stores/{store_id}/products/{product_id}"),
    ("POST", "/orders/v1/stores/{store_id}/carts"),
    # Whoever holds a cart's secret holds the cart.
    ("GET", "/orders/v1/stores/{store_id}/carts/{cart_id}"),
    ("PUT", "/orders/v1/stores/{store_id}/carts/{cart_id}/lines/{variant_id}"),
    ("POST", "/orders/v1/stores/{store_id}/orders"),
    ("POST", "/identity/v1/stores/{store_id}/accounts"),
    ("POST", "/identity/v1/stores/{store_id}/confirmations"),
    ("POST", "/identity/v1/stores/{store_id}/tokens"),
    ("GET", "/identity/v1/stores/by-slug/{slug}"),
    ("GET", "/identity/v1/stores/{store_id}"),
    ("GET", "/identity/v1/jwks.json"),
    ("GET", "/identity/confirm"),
    ("GET", "/identity/confirm-email"),
    # The link of the mail and the password of the account that asked for it.
    ("POST", "/identity/v1/stores/{store_id}/email-confirmations"),
    ("GET", "/privacy/v1/stores/{store_id}/data-map"),
    ("GET", "/privacy/download"),
    ("GET", "/privacy/form"),
    ("GET", "/privacy/request"),
    ("POST", "/privacy/v1/stores/{store_id}/request-forms"),
    ("POST", "/privacy/v1/stores/{store_id}/authorised-request-forms"),
    # The token of the link in a mail, in the body, is what shows a request and what is done with it.
    ("POST", "/privacy/v1/confirmations"),
    ("POST", "/privacy/v1/status"),
    ("POST", "/privacy/v1/status/withdrawal"),
    ("POST", "/privacy/v1/status/documents"),
    ("POST", "/privacy/v1/status/answers"),
    ("POST", "/privacy/v1/status/explanation"),
    # The token of the link, in the body, is what opens an export.
    ("POST", "/privacy/v1/downloads"),
    ("GET", "/privacy/v1/downloads/{download_id}"),
    ("GET", "/privacy/v1/keys.json"),
    # Anybody may check a log: it names nobody.
    ("GET", "/privacy/v1/stores/{store_id}/evidence/head"),
    ("GET", "/privacy/v1/stores/{store_id}/evidence/heads"),
    ("GET", "/privacy/v1/stores/{store_id}/evidence/leaves"),
    ("GET", "/privacy/v1/stores/{store_id}/evidence/inclusion"),
    ("GET", "/privacy/v1/stores/{store_id}/evidence/consistency"),
    ("POST", "/privacy/v1/status/certificate"),
    ("POST", "/privacy/v1/status/certificate.pdf"),
    # The recipient's secret signs the answer.
    ("POST", "/privacy/v1/deliveries/{delivery_id}/answer"),
    ("GET", "/privacy/opendsr/certificate.pem"),
    ("GET", "/privacy/opendsr/{store_id}/v1/discovery"),
    ("GET", "/privacy/opendsr/{store_id}/discovery"),
}
"""What anybody may call. Every other route answers an anonymous caller with 401."""
SIGNED: frozenset[Route] = frozenset(
    {("POST", "/privacy/opendsr/callbacks"), ("POST", "/privacy/opendsr/opengdpr_callbacks")}
)
"""What whoever signs may call: nothing is read before the signature is good, and without one the answer is 403."""
TOOLS: frozenset[Route] = frozenset(
    (method, f"/privacy/opendsr/{{store_id}}/{path}")
    for method, path in (
        *(("POST", "v1/requests"), ("POST", "opengdpr_requests")),
        *(("GET", "v1/requests/{subject_request_id}"), ("GET", "opengdpr_requests/{subject_request_id}")),
        *(
            ("DELETE", "v1/requests/{subject_request_id}"),
            ("DELETE", "opengdpr_requests/{subject_request_id}"),
        ),
        ("GET", "v1/requests/{subject_request_id}/results"),
        ("GET", "v1/requests/{subject_request_id}/results/{number}"),
    )
)
"""What a store's own privacy tool may call, with the key that it was given, and nobody else."""

CUSTOMER = frozenset({Role.CUSTOMER})
OWNER = frozenset({Role.OWNER})
OFFICERS = frozenset({Role.OWNER, Role.PRIVACY_OFFICER})
ANYBODY = frozenset(Role)
ROLES: Mapping[Route, frozenset[Role]] = {
    ("POST", "/catalog/v1/stores/{store_id}/products"): MANAGERS,
    ("PATCH", "/catalog/v1/stores/{store_id}/products/{product_id}"): MANAGERS,
    ("PATCH", "/catalog/v1/stores/{store_id}/variants/{variant_id}"): MANAGERS,
    ("GET", "/catalog/v1/stores/{store_id}/variants/{variant_id}/stock"): STAFF,
    ("PUT", "/catalog/v1/stores/{store_id}/variants/{variant_id}/stock"): MANAGERS,
    ("POST", "/catalog/v1/stores/{store_id}/imports"): MANAGERS,
    ("GET", "/catalog/v1/stores/{store_id}/imports/{import_id}"): MANAGERS,
    ("GET", "/catalog/v1/stores/{store_id}/export.csv"): STAFF,
    ("GET", "/orders/v1/stores/{store_id}/orders"): ANYBODY,
    ("POST", "/orders/v1/stores/{store_id}/order-searches"): STAFF,
    ("GET", "/orders/v1/stores/{store_id}/orders/{order_id}"): ANYBODY,
    ("POST", "/orders/v1/stores/{store_id}/orders/{order_id}/cancel"): MANAGERS | CUSTOMER,
    ("POST", "/orders/v1/stores/{store_id}/orders/{order_id}/fulfilments"): MANAGERS,
    ("GET", "/orders/v1/stores/{store_id}/reports/sales"): STAFF,
    ("GET", "/identity/v1/stores/{store_id}/me"): CUSTOMER,
    ("PATCH", "/identity/v1/stores/{store_id}/me"): CUSTOMER,
    ("GET", "/identity/v1/stores/{store_id}/me/emails"): CUSTOMER,
    ("POST", "/identity/v1/stores/{store_id}/me/emails"): CUSTOMER,
    ("DELETE", "/identity/v1/stores/{store_id}/me/emails/{email_id}"): CUSTOMER,
    ("GET", "/identity/v1/stores/{store_id}/sessions"): CUSTOMER,
    ("DELETE", "/identity/v1/stores/{store_id}/sessions/current"): CUSTOMER,
    ("DELETE", "/identity/v1/stores/{store_id}/sessions/{session_id}"): CUSTOMER,
    ("POST", "/identity/v1/stores/{store_id}/me/closing"): CUSTOMER,
    ("PATCH", "/identity/v1/stores/{store_id}"): OWNER,
    ("POST", "/identity/v1/stores/{store_id}/closing"): OWNER,
    ("GET", "/identity/v1/stores/{store_id}/closing"): OWNER,
    ("DELETE", "/identity/v1/stores/{store_id}/closing"): OWNER,
    ("GET", "/identity/v1/stores/{store_id}/settings"): OWNER,
    ("PUT", "/identity/v1/stores/{store_id}/settings"): OWNER,
    ("POST", "/billing/v1/stores/{store_id}/orders/{order_id}/payments"): MANAGERS,
    ("GET", "/billing/v1/stores/{store_id}/orders/{order_id}/receivable"): STAFF,
    ("GET", "/billing/v1/stores/{store_id}/receivables"): STAFF,
    ("GET", "/billing/v1/stores/{store_id}/invoices"): ANYBODY,
    ("GET", "/billing/v1/stores/{store_id}/invoices/{invoice_id}"): ANYBODY,
    ("GET", "/billing/v1/stores/{store_id}/ledger/balances"): STAFF,
    ("GET", "/billing/v1/stores/{store_id}/ledger/entries"): STAFF,
    ("POST", "/privacy/v1/stores/{store_id}/requests"): CUSTOMER,
    ("GET", "/privacy/v1/stores/{store_id}/requests"): CUSTOMER | {Role.OWNER, Role.PRIVACY_OFFICER},
    ("GET", "/privacy/v1/stores/{store_id}/requests/{request_id}"): CUSTOMER
    | {Role.OWNER, Role.PRIVACY_OFFICER},
    ("POST", "/privacy/v1/stores/{store_id}/requests-on-behalf"): OFFICERS | {Role.SUPPORT},
    ("GET", "/privacy/v1/stores/{store_id}/requests/{request_id}/documents"): OFFICERS,
    ("GET", "/privacy/v1/stores/{store_id}/requests/{request_id}/documents/{document_id}"): OFFICERS,
    ("POST", "/privacy/v1/stores/{store_id}/requests/{request_id}/documents/{document_id}/checks"): OFFICERS,
    ("GET", "/privacy/v1/stores/{store_id}/requests/{request_id}/preview"): OFFICERS,
    ("POST", "/privacy/v1/stores/{store_id}/requests/{request_id}/preview"): OFFICERS,
    ("GET", "/privacy/v1/stores/{store_id}/requests/{request_id}/proposal"): OFFICERS,
    ("POST", "/privacy/v1/stores/{store_id}/requests/{request_id}/decision"): OFFICERS,
    ("POST", "/privacy/v1/stores/{store_id}/requests/{request_id}/extension"): OFFICERS,
    ("POST", "/privacy/v1/stores/{store_id}/requests/{request_id}/question"): OFFICERS,
    ("PUT", "/privacy/v1/stores/{store_id}/requests/{request_id}/assignment"): OFFICERS,
    ("POST", "/privacy/v1/stores/{store_id}/requests/{request_id}/lifting"): OFFICERS,
    ("POST", "/privacy/v1/stores/{store_id}/requests/{request_id}/notes"): OFFICERS,
    ("GET", "/privacy/v1/stores/{store_id}/requests/{request_id}/notes"): OFFICERS,
    ("GET", "/privacy/v1/stores/{store_id}/requests/{request_id}/explanation"): OFFICERS | CUSTOMER,
    ("GET", "/privacy/v1/stores/{store_id}/waiting-requests"): OFFICERS,
    ("GET", "/privacy/v1/stores/{store_id}/requests/{request_id}/waiting"): OFFICERS,
    ("POST", "/privacy/v1/stores/{store_id}/merges"): OFFICERS,
    ("POST", "/privacy/v1/stores/{store_id}/separations"): OFFICERS,
    ("GET", "/privacy/v1/stores/{store_id}/settings"): OFFICERS,
    ("PUT", "/privacy/v1/stores/{store_id}/settings"): OFFICERS,
    ("GET", "/privacy/v1/stores/{store_id}/retention"): OFFICERS,
    ("PUT", "/privacy/v1/stores/{store_id}/retention"): OFFICERS,
    ("POST", "/privacy/v1/stores/{store_id}/retention/preview"): OFFICERS,
    ("GET", "/privacy/v1/stores/{store_id}/retention/forecast"): OFFICERS,
    ("POST", "/privacy/v1/stores/{store_id}/holds"): OFFICERS,
    ("GET", "/privacy/v1/stores/{store_id}/holds"): OFFICERS,
    ("GET", "/privacy/v1/stores/{store_id}/holds/{hold_id}"): OFFICERS,
    ("DELETE", "/privacy/v1/stores/{store_id}/holds/{hold_id}"): OFFICERS,
    ("POST", "/privacy/v1/stores/{store_id}/recipients"): OFFICERS,
    ("GET", "/privacy/v1/stores/{store_id}/recipients"): OFFICERS,
    ("GET", "/privacy/v1/stores/{store_id}/recipients/{recipient_id}"): OFFICERS,
    ("PATCH", "/privacy/v1/stores/{store_id}/recipients/{recipient_id}"): OFFICERS,
    ("POST", "/privacy/v1/stores/{store_id}/recipients/{recipient_id}/tests"): OFFICERS,
    ("POST", "/privacy/v1/stores/{store_id}/recipients/{recipient_id}/pausing"): OFFICERS,
    ("POST", "/privacy/v1/stores/{store_id}/recipients/{recipient_id}/resumption"): OFFICERS,
    ("POST", "/privacy/v1/stores/{store_id}/recipients/{recipient_id}/disabling"): OFFICERS,
    ("POST", "/privacy/v1/stores/{store_id}/recipients/{recipient_id}/secret-rotations"): OFFICERS,
    ("GET", "/privacy/v1/stores/{store_id}/recipients/{recipient_id}/deliveries"): OFFICERS,
    ("GET", "/privacy/v1/stores/{store_id}/recipients/{recipient_id}/deliveries/{delivery_id}"): OFFICERS,
    (
        "GET",
        "/privacy/v1/stores/{store_id}/recipients/{recipient_id}/deliveries/{delivery_id}/attempts",
    ): OFFICERS,
    (
        "POST",
        "/privacy/v1/stores/{store_id}/recipients/{recipient_id}/deliveries/{delivery_id}/resending",
    ): OFFICERS,
    ("GET", "/privacy/v1/stores/{store_id}/figures"): OFFICERS,
    ("GET", "/privacy/v1/stores/{store_id}/figures.csv"): OFFICERS,
    ("GET", "/privacy/v1/stores/{store_id}/evidence/log"): OFFICERS,
    ("GET", "/privacy/v1/stores/{store_id}/requests/{request_id}/certificate"): OFFICERS | CUSTOMER,
    ("GET", "/privacy/v1/stores/{store_id}/requests/{request_id}/certificate.pdf"): OFFICERS | CUSTOMER,
    ("POST", "/privacy/v1/stores/{store_id}/opendsr-controllers"): OFFICERS,
    ("GET", "/privacy/v1/stores/{store_id}/opendsr-controllers"): OFFICERS,
    ("GET", "/privacy/v1/stores/{store_id}/opendsr-controllers/{controller_id}"): OFFICERS,
    ("PUT", "/privacy/v1/stores/{store_id}/opendsr-controllers/{controller_id}"): OFFICERS,
    ("DELETE", "/privacy/v1/stores/{store_id}/opendsr-controllers/{controller_id}"): OFFICERS,
    ("POST", "/privacy/v1/stores/{store_id}/opendsr-controllers/{controller_id}/keys"): OFFICERS,
    ("GET", "/privacy/v1/stores/{store_id}/opendsr-controllers/{controller_id}/callbacks"): OFFICERS,
    # Of the platform's own store.
    ("GET", "/privacy/v1/escalations"): OFFICERS,
    ("GET", "/privacy/v1/operations/requests"): OFFICERS,
    ("GET", "/privacy/v1/operations/requests/{request_id}"): OFFICERS,
    ("GET", "/privacy/v1/store-endings"): OFFICERS,
    # These two are for merchants, who are customers of the platform's own store.
    ("POST", "/identity/v1/stores"): CUSTOMER,
    ("GET", "/identity/v1/stores"): CUSTOMER,
    ("GET", "/privacy/v1/participants"): STAFF,
    (
        "POST",
        "/privacy/v1/stores/{store_id}/requests/{request_id}/parts/{participant}/{verb}/attempts",
    ): OFFICERS,
    (
        "POST",
        "/privacy/v1/stores/{store_id}/requests/{request_id}/parts/{participant}/{verb}/settlement",
    ): OFFICERS,
    # Of the platform's own store.
    ("POST", "/privacy/v1/participants/{name}/departure"): OFFICERS,
    ("GET", "/privacy/v1/participants/{name}/departure"): OFFICERS,
    ("DELETE", "/privacy/v1/participants/{name}/departure"): OFFICERS,
}
"""Who may call what is not public."""
OF_THE_PLATFORM = frozenset(
    {
        ("POST", "/identity/v1/stores"),
        ("GET", "/identity/v1/stores"),
        ("GET", "/privacy/v1/escalations"),
        ("GET", "/privacy/v1/operations/requests"),
        ("GET", "/privacy/v1/operations/requests/{request_id}"),
        ("GET", "/privacy/v1/store-endings"),
        ("POST", "/privacy/v1/participants/{name}/departure"),
        ("GET", "/privacy/v1/participants/{name}/departure"),
        ("DELETE", "/privacy/v1/participants/{name}/departure"),
    }
)

UNTIL = str(datetime.now(UTC).date() + timedelta(days=30))
"""The last day of a hold."""

_ASKED_BY_A_TOOL = {
    "regulation": "gdpr",
    "subject_request_id": "a7551968-d5d6-44b2-9831-815ac9017798",
    "subject_request_type": "access",
    "submitted_time": "2026-11-01T12:00:00Z",
    "subject_identities": [
        {"identity_type": "email", "identity_format": "raw", "identity_value": "person@vitrine.example"}
    ],
}
_SAID_BY_A_PROCESSOR = {
    "controller_id": "a-store",
    "subject_request_id": "a7551968-d5d6-44b2-9831-815ac9017798",
    "status_callback_url": "https://vitrine.example/privacy/opendsr/callbacks",
    "request_status": "completed",
    "expected_completion_time": "2026-12-01T12:00:00Z",
}
# What a call needs besides its path to get as far as the object it names.
BODIES: Mapping[Route, Any] = {
    ("POST", "/catalog/v1/stores/{store_id}/products"): {
        "handle": "a-new-pen",
        "title": "A new pen",
        "variants": [{"sku": "PEN-9", "price": 250}],
    },
    ("PATCH", "/catalog/v1/stores/{store_id}/products/{product_id}"): {"title": "Another pen"},
    ("PATCH", "/catalog/v1/stores/{store_id}/variants/{variant_id}"): {"price": 300},
    ("PUT", "/catalog/v1/stores/{store_id}/variants/{variant_id}/stock"): {"on_hand": 5},
    ("PUT", "/orders/v1/stores/{store_id}/carts/{cart_id}/lines/{variant_id}"): {"quantity": 1},
    ("POST", "/billing/v1/stores/{store_id}/orders/{order_id}/payments"): {
        "amount": {"amount": 500, "currency": "EUR"},
        "method": "bank_transfer",
        "received_on": "2026-01-02",
    },
    ("POST", "/orders/v1/stores/{store_id}/orders"): {
        "cart_id": "00000000-0000-4000-8000-00000000000c",
        "contact": {"name": "A person", "email": "person@vitrine.example", "address": ADDRESS},
        "payment_method": "bank_transfer",
    },
    ("POST", "/orders/v1/stores/{store_id}/order-searches"): {"email": "person@vitrine.example"},
    ("POST", "/identity/v1/stores"): {
        "name": "Papeterie",
        "slug": "another-papeterie",
        "country": "FR",
        "currency": "EUR",
    },
    ("PATCH", "/identity/v1/stores/{store_id}"): {"name": "Another name"},
    ("POST", "/identity/v1/stores/{store_id}/closing"): {"name": "Papeterie"},
    ("PUT", "/identity/v1/stores/{store_id}/settings"): {"grace_days": 30},
    ("POST", "/identity/v1/stores/{store_id}/me/closing"): {"password": "not the one of the account"},
    ("PATCH", "/identity/v1/stores/{store_id}/me"): {"name": "Another name", "addresses": [ADDRESS]},
    ("POST", "/identity/v1/stores/{store_id}/accounts"): {
        "email": "person@vitrine.example",
        "password": "correct horse battery staple",
    },
    ("POST", "/identity/v1/stores/{store_id}/confirmations"): {"token": "a" * 43},
    ("POST", "/identity/v1/stores/{store_id}/me/emails"): {"email": "another@vitrine.example"},
    ("POST", "/identity/v1/stores/{store_id}/email-confirmations"): {
        "token": "a" * 43,
        "password": "correct horse battery staple",
    },
    ("POST", "/privacy/v1/stores/{store_id}/merges"): {
        "subjects": [{"email": "person@vitrine.example"}, {"email": "another@vitrine.example"}],
        "preview": True,
    },
    ("POST", "/privacy/v1/stores/{store_id}/separations"): {"subject": {"email": "person@vitrine.example"}},
    ("POST", "/privacy/v1/confirmations"): {"token": "a" * 43},
    ("POST", "/privacy/v1/status"): {"token": "a" * 43},
    ("POST", "/privacy/v1/status/withdrawal"): {"token": "a" * 43},
    ("POST", "/privacy/v1/status/certificate"): {"token": "a" * 43},
    ("POST", "/privacy/v1/status/certificate.pdf"): {"token": "a" * 43},
    ("POST", "/privacy/v1/status/explanation"): {"token": "a" * 43},
    ("POST", "/privacy/v1/status/answers"): {"token": "a" * 43, "text": "The second one."},
    ("POST", "/privacy/v1/stores/{store_id}/requests/{request_id}/decision"): {"approve": True},
    ("POST", "/privacy/v1/stores/{store_id}/requests/{request_id}/extension"): {"reason": "complexity"},
    ("POST", "/privacy/v1/stores/{store_id}/requests/{request_id}/question"): {
        "text": "Which order do you mean?"
    },
    ("PUT", "/privacy/v1/stores/{store_id}/requests/{request_id}/assignment"): {"account_id": None},
    ("POST", "/privacy/v1/stores/{store_id}/requests/{request_id}/notes"): {"text": "A note."},
    ("POST", "/privacy/v1/stores/{store_id}/requests/{request_id}/parts/{participant}/{verb}/settlement"): {
        "outcome": "done",
        "ground": "done-by-hand",
        "reason": "It was deleted by hand.",
    },
    ("POST", "/privacy/v1/participants/{name}/departure"): {"ground": "erased"},
    ("PUT", "/privacy/v1/stores/{store_id}/settings"): {"lifting_notice_days": 7},
    ("PUT", "/privacy/v1/stores/{store_id}/retention"): {"lengths": {"order-cancelled": "P20D"}},
    ("POST", "/privacy/v1/stores/{store_id}/retention/preview"): {"lengths": {"order-cancelled": "P20D"}},
    ("POST", "/privacy/v1/stores/{store_id}/holds"): {
        "email": "person@vitrine.example",
        "ground": "litigation",
        "until": UNTIL,
    },
    ("POST", "/privacy/v1/stores/{store_id}/recipients"): {
        "name": "Parcel & Co",
        "url": "https://recipient.example/hook",
        "role": "processor",
    },
    ("PATCH", "/privacy/v1/stores/{store_id}/recipients/{recipient_id}"): {"name": "Another name"},
    ("POST", "/privacy/v1/stores/{store_id}/recipients/{recipient_id}/secret-rotations"): {"at_once": True},
    ("POST", "/privacy/v1/deliveries/{delivery_id}/answer"): {"outcome": "done"},
    ("POST", "/privacy/v1/stores/{store_id}/request-forms"): {
        "right": "access",
        "email": "person@vitrine.example",
    },
    ("POST", "/privacy/v1/stores/{store_id}/requests-on-behalf"): {
        "right": "access",
        "email": "person@vitrine.example",
        "channel": "letter",
        "seen": "A letter.",
    },
    ("POST", "/privacy/v1/stores/{store_id}/requests/{request_id}/documents/{document_id}/checks"): {
        "accepted": True,
        "seen": "A card.",
    },
    ("POST", "/privacy/v1/stores/{store_id}/opendsr-controllers"): {"name": "Our privacy tool"},
    ("PUT", "/privacy/v1/stores/{store_id}/opendsr-controllers/{controller_id}"): {"name": "Another tool"},
    ("POST", "/privacy/v1/stores/{store_id}/opendsr-controllers/{controller_id}/keys"): {"overlap_hours": 1},
    ("POST", "/privacy/opendsr/callbacks"): _SAID_BY_A_PROCESSOR,
    ("POST", "/privacy/opendsr/opengdpr_callbacks"): _SAID_BY_A_PROCESSOR,
    ("POST", "/privacy/opendsr/{store_id}/v1/requests"): _ASKED_BY_A_TOOL,
    ("POST", "/privacy/opendsr/{store_id}/opengdpr_requests"): _ASKED_BY_A_TOOL,
    ("POST", "/identity/v1/stores/{store_id}/tokens"): {
        "grant_type": "password",
        "email": "person@vitrine.example",
        "password": "correct horse battery staple",
    },
    ("POST", "/privacy/v1/stores/{store_id}/requests"): {
        "right": "access",
        "email": "person@vitrine.example",
    },
}
QUERIES: Mapping[Route, Mapping[str, str]] = {
    ("GET", "/orders/v1/stores/{store_id}/reports/sales"): {"from": "2026-01-01", "to": "2026-12-31"},
    ("GET", "/privacy/v1/stores/{store_id}/figures.csv"): {"year": "2026"},
    ("GET", "/privacy/v1/stores/{store_id}/evidence/inclusion"): {"leaf": "0" * 64},
    ("GET", "/privacy/v1/stores/{store_id}/evidence/consistency"): {"first": "0", "second": "0"},
}


def routes(*tables: Iterable[Route], having: str = "") -> Any:
    """A test of its own for every route of these tables whose path has the parameter."""
    chosen = sorted(
        {route for table in tables for route in table if having in route[1]}, key=lambda r: r[::-1]
    )
    return pytest.mark.parametrize("route", chosen, ids=[" ".join(route) for route in chosen])


@dataclass(frozen=True)
class Call:
    """A request to a route, as somebody, about some objects."""

    route: Route
    names: Mapping[str, str]
    headers: Mapping[str, str]

    def about(self, **names: str) -> "Call":
        return replace(self, names={**self.names, **names})

    async def made(self, house: House, **options: Any) -> httpx.Response:
        method, path = self.route
        if "json" not in options and "content" not in options and self.route in BODIES:
            options["json"] = BODIES[self.route]
        return await house.http.request(
            method,
            path.format_map({name: quote(value, safe="") for name, value in self.names.items()}),
            headers={**self.headers, **options.pop("headers", {})},
            params=options.pop("params", QUERIES.get(self.route)),
            **options,
        )


def as_role(store: Furnished, role: Role) -> dict[str, str]:
    """The store's real customer, or a member of its staff."""
    return store.customer.headers if role is Role.CUSTOMER else authorization(store.id, role)


def call(route: Route, store: Furnished, headers: Mapping[str, str] | None = None) -> Call:
    return Call(route, {"store_id": str(store.id), "number": "1", **store.objects}, headers or {})


def permitted(route: Route, store: Furnished, merchant: Person) -> Mapping[str, str]:
    """The header of somebody who may call the route; nobody's where it is public."""
    if route in PUBLIC | SIGNED:
        return {}
    if route in TOOLS:
        return store.tool
    role = min(ROLES[route])
    if route in OF_THE_PLATFORM:
        return merchant.headers if role is Role.CUSTOMER else authorization(PLATFORM_STORE, role)
    return as_role(store, role)


def is_problem(answer: httpx.Response, *statuses: int) -> None:
    assert answer.status_code in statuses, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == answer.status_code


def seen(answer: httpx.Response) -> tuple[int, dict[str, str], bytes]:
    """All that a caller can tell two answers apart by."""
    return answer.status_code, dict(answer.headers), answer.content
