"""Shopify's three compliance webhooks, with their headers and bodies: an app that was written for them works as it is.

https://shopify.dev/docs/apps/build/compliance/privacy-law-compliance
"""

import base64
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import replace
from itertools import zip_longest
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid5

import orjson

from libs.common.events.privacy import Verb
from libs.common.outgoing import NotSent
from services.privacy.recipients.protocols import Reply, Sending, Told
from services.privacy.recipients.replies import acknowledged
from services.privacy.recipients.words import STORE_ENDED, TEST

VERBS = frozenset({Verb.EXPORT, Verb.ERASE})
"""Shopify has no topic for the other rights: such a recipient is told of them by hand."""
PARTS = False
TOPICS: Mapping[str, str] = {
    Verb.EXPORT: "customers/data_request",
    Verb.ERASE: "customers/redact",
    STORE_ENDED: "shop/redact",
    TEST: "customers/data_request",
}
API_VERSION = "2025-01"
_SAFE = (1 << 53) - 1
"""Whatever reads numbers as JavaScript does has them to this one without loss."""


def number_of(id_: UUID) -> int:
    """The number that stands for an id, the same for ever: Shopify's ids are numbers."""
    return int.from_bytes(hashlib.sha256(id_.bytes).digest()[:8]) & _SAFE


def domain_of(store_id: UUID, public_url: str) -> str:
    """Under which name an app knows the shop."""
    return f"{store_id}.{urlsplit(public_url).hostname}"


def compose(told: Told) -> bytes:
    """The bodies of the topic, one for each address of the person, as a list: an app knows a customer by one."""
    shop = {
        "shop_id": number_of(told.to.store_id),
        "shop_domain": domain_of(told.to.store_id, told.public_url),
    }
    if told.what == STORE_ENDED:
        bodies = [shop]
    else:
        bodies = [{**shop, "customer": one, **_about(told)} for one in _customers(told)]
    return orjson.dumps([orjson.dumps(body).decode() for body in bodies])


def _about(told: Told) -> dict[str, Any]:
    orders = [number_of(order) for order in told.references.orders]
    if told.what == Verb.ERASE:
        return {"orders_to_redact": orders}
    return {"orders_requested": orders, "data_request": {"id": number_of(_request(told))}}


def _customers(told: Told) -> list[dict[str, Any]]:
    """As many as there are addresses or accounts; a test is about a customer whom nobody knows."""
    known = told.references
    accounts = [number_of(one) for one in known.accounts] or [number_of(_request(told))]
    return [
        {"id": account, "email": email, "phone": phone}
        for account, email, phone in zip_longest(accounts, known.emails, known.phones, fillvalue=None)
    ]


def _request(told: Told) -> UUID:
    return told.request_id or told.delivery_id


async def send(sending: Sending) -> Reply:
    """One try: what was not taken yet of the list, each under an id of its own, until one is refused."""
    bodies: list[str] = orjson.loads(sending.body)
    # What was taken whole and is sent once more is sent whole.
    first = int(sending.memo.get("taken", 0)) % len(bodies)
    reply = Reply()
    for number, body in enumerate(bodies[first:], first):
        reply = await _send(sending, number, body.encode())
        if reply.word:
            return replace(reply, memo={"taken": number})
    return replace(reply, memo={"taken": len(bodies)})


async def _send(sending: Sending, number: int, body: bytes) -> Reply:
    # There is one place for a signature: while the secret changes, it is made with the one before.
    mac = hmac.digest(sending.secrets[-1].encode(), body, hashlib.sha256)
    id_ = sending.delivery_id if number == 0 else uuid5(sending.delivery_id, str(number))
    headers = {
        "Content-Type": "application/json",
        "X-Shopify-Topic": TOPICS[sending.what],
        "X-Shopify-Hmac-Sha256": base64.b64encode(mac).decode(),
        "X-Shopify-Shop-Domain": orjson.loads(body)["shop_domain"],
        "X-Shopify-API-Version": API_VERSION,
        "X-Shopify-Webhook-Id": str(id_),
        "X-Shopify-Triggered-At": f"{sending.made_at:%Y-%m-%dT%H:%M:%S.%f}000Z",
    }
    try:
        answer = await sending.outgoing.send("POST", sending.to.url, headers=headers, content=body)
    except NotSent as error:
        return Reply(word=error.word)
    return acknowledged(answer, now=sending.now)
