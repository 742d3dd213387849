"""A recipient that was written for Shopify's three compliance webhooks."""

from conformance.checks import Checks, expect
from conformance.over_webhook.endpoint import Endpoint, described
from libs.common.events.privacy import Verb
from services.privacy.recipients.protocols import Reply, Told
from services.privacy.recipients.words import STORE_ENDED

check = Checks[Endpoint]("What Shopify's webhooks check")

_UNAUTHORIZED = 401


@check
async def takes_requests_for_data(endpoint: Endpoint) -> str:
    """`customers/data_request`, with its HMAC, is answered by a 2xx."""
    return await _taken(endpoint, endpoint.told(Verb.EXPORT, endpoint.stranger()))


@check
async def takes_redactions_of_customers(endpoint: Endpoint) -> str:
    """`customers/redact`, with its HMAC, is answered by a 2xx."""
    return await _taken(endpoint, endpoint.told(Verb.ERASE, endpoint.stranger()))


@check
async def takes_redactions_of_shops(endpoint: Endpoint) -> str:
    """`shop/redact`, with its HMAC, is answered by a 2xx."""
    return await _taken(endpoint, endpoint.told(STORE_ENDED))


@check
async def takes_the_same_twice(endpoint: Endpoint) -> str:
    """The same `X-Shopify-Webhook-Id` again is answered by a 2xx again."""
    told = endpoint.told(Verb.ERASE, endpoint.stranger())
    return f"{await _taken(endpoint, told)}, then {await _taken(endpoint, told)}"


@check
async def refuses_another_hmac(endpoint: Endpoint) -> str:
    """What another secret signed is refused with 401, on each topic, as Shopify demands."""
    for told in (
        endpoint.told(Verb.EXPORT, endpoint.stranger()),
        endpoint.told(Verb.ERASE, endpoint.stranger()),
        endpoint.told(STORE_ENDED),
    ):
        _is_refused(await endpoint.send(told, secrets=["another-secret"]))
    return "401 on each topic"


async def _taken(endpoint: Endpoint, told: Told) -> str:
    reply = await endpoint.send(told)
    expect(not reply.word, described(reply))
    return f"status {reply.status}"


def _is_refused(reply: Reply) -> None:
    expect(reply.status == _UNAUTHORIZED, described(reply))
