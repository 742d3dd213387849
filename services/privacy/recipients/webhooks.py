"""Our own webhooks, after Standard Webhooks: docs/recipients.md shows them to whoever receives them."""

from typing import Any

import orjson

from libs.common.events.privacy import Verb
from libs.common.outgoing import NotSent
from services.privacy.recipients.protocols import Reply, Sending, Told
from services.privacy.recipients.replies import understood
from services.privacy.recipients.signatures import signed

VERBS = frozenset({Verb.EXPORT, Verb.RECTIFY, Verb.ERASE, Verb.RESTRICT, Verb.LIFT_RESTRICTION, Verb.OBJECT})
PARTS = True


def compose(told: Told) -> bytes:
    """`{"type": "privacy.erase", "timestamp": …, "data": {…}}`."""
    body = {"type": f"privacy.{told.what}", "timestamp": told.made_at, "data": _data(told)}
    return orjson.dumps(body, default=str, option=orjson.OPT_UTC_Z | orjson.OPT_OMIT_MICROSECONDS)


def _data(told: Told) -> dict[str, Any]:
    to_us = {
        "delivery_id": told.delivery_id,
        "recipient_id": told.to.id,
        "store": {"id": told.to.store_id, "name": told.store_name},
    }
    if told.request_id is None:
        return to_us
    return {
        **to_us,
        "answer_url": f"{told.public_url}/privacy/v1/deliveries/{told.delivery_id}/answer",
        "request_id": told.request_id,
        "verb": told.what,
        "right": told.right,
        "law": told.law,
        "purpose": told.purpose,
        "category": told.category,
        "received_at": told.received_at,
        "due_on": told.due_on,
        "person": told.references.model_dump(mode="json"),
        "corrections": [
            one.model_dump(mode="json", include={"category", "value"}) for one in told.corrections
        ],
    }


async def send(sending: Sending) -> Reply:
    """One try, signed for the moment at which it is made."""
    headers = signed(str(sending.delivery_id), sending.body, sending.secrets, now=sending.now)
    try:
        answer = await sending.outgoing.send(
            "POST",
            sending.to.url,
            headers={"Content-Type": "application/json", **headers},
            content=sending.body,
        )
    except NotSent as error:
        return Reply(word=error.word)
    return understood(answer, now=sending.now)
