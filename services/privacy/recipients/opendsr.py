"""Processors that speak OpenDSR 2.0, or its former names. Ours as controller: docs/opendsr.md.

What is sent depends on what a processor says it supports, so a body is made with all that is known of the person, and
cut to that when it is sent. What OpenDSR has no words for, a correction, a restriction, an objection, an erasure of a
part, such a recipient has no part in: an extension would be heard by nobody who does not know it already.
"""

import base64
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from libs.common.events.privacy import Outcome, References, Verb
from libs.common.outgoing import Answer, NotSent, Outgoing
from services.privacy.opendsr.certificates import Untrusted, certificates_of
from services.privacy.opendsr.peers import Doubtful, Peer, check_signature, discovered, forget, understood
from services.privacy.opendsr.places import callbacks_of
from services.privacy.opendsr.wire import (
    VERSION,
    Accepted,
    Identity,
    IdentityFormat,
    IdentityType,
    NewRequest,
    Regulation,
    RequestStatus,
    RequestType,
    Status,
    written,
)
from services.privacy.recipients.protocols import File, Reply, Said, Sending, Told
from services.privacy.recipients.replies import acknowledged
from services.privacy.recipients.words import TEST
from services.privacy.settings import Settings, present

VERBS = frozenset({Verb.EXPORT, Verb.ERASE})
PARTS = False

_POLLED_EVERY = timedelta(days=1)
"""While it has still time: a callback that was lost costs a day."""
_FIRST_PAUSE = timedelta(hours=1)
_IDENTITIES = 20


# --- What is asked ---------------------------------------------------------------------------------------


def compose(told: Told) -> bytes:
    """The request with all that is known; its id is the delivery's, so that the same sent again is the same."""
    if told.request_id is None or told.received_at is None:
        return b""
    wanted = NewRequest(
        regulation=Regulation(told.law),
        subject_request_id=str(told.delivery_id),
        subject_request_type=_type_of(told),
        submitted_time=told.received_at,
        subject_identities=_identities(told.references),
        api_version=VERSION,
        status_callback_urls=[callbacks_of(told.public_url)],
    )
    return written(wanted)


def _type_of(told: Told) -> RequestType:
    if told.what == Verb.ERASE:
        return RequestType.ERASURE
    return RequestType.PORTABILITY if told.right == RequestType.PORTABILITY else RequestType.ACCESS


def _identities(known: References) -> list[Identity]:
    found = [(IdentityType.EMAIL, email) for email in known.emails]
    found += [(IdentityType.CUSTOMER_ID, str(account)) for account in known.accounts]
    return [
        Identity(identity_type=kind, identity_format=IdentityFormat.RAW, identity_value=value)
        for kind, value in found[:_IDENTITIES]
    ]


def _cut(wanted: NewRequest, peer: Peer) -> NewRequest:
    """The same with identities in formats that the processor finds people by."""
    supported = {(one.identity_type, one.identity_format) for one in peer.discovery.supported_identities}
    identities = [cut for one in wanted.subject_identities if (cut := _supported(one, supported)) is not None]
    return wanted.model_copy(update={"subject_identities": identities})


# Two ways of writing one address have two hashes, and whoever is not found is not erased.
_PREFERRED = (IdentityFormat.RAW, IdentityFormat.SHA256, IdentityFormat.SHA1, IdentityFormat.MD5)


def _supported(one: Identity, supported: Iterable[Any]) -> Identity | None:
    form = next((form for form in _PREFERRED if (one.identity_type, form) in supported), None)
    if form is None:
        return None
    value = one.identity_value
    if form is not IdentityFormat.RAW:
        normal = value.strip().lower().encode()
        value = hashlib.new(form, normal, usedforsecurity=False).hexdigest()
    return Identity(identity_type=one.identity_type, identity_format=form, identity_value=value)


# --- One try ---------------------------------------------------------------------------------------------


async def send(sending: Sending) -> Reply:
    """Look at what the processor is and supports; then, unless it is only a test, ask."""
    if sending.what == TEST:
        forget(sending.to.url)
    try:
        peer = await discovered(sending.outgoing, sending.to.url, now=sending.now)
        await certificates_of(present()).of(
            peer.domain, peer.discovery.processor_certificate, now=sending.now
        )
        return Reply(status=200) if sending.what == TEST else await _ask(sending, peer)
    except (Doubtful, Untrusted, NotSent) as error:
        return Reply(word=error.word)


async def _ask(sending: Sending, peer: Peer) -> Reply:
    wanted = _cut(NewRequest.model_validate_json(sending.body), peer)
    if wanted.subject_request_type not in peer.discovery.supported_subject_request_types:
        return Reply(word="right-not-supported")
    if not wanted.subject_identities:
        # By nothing that we know could it find the person, so by nothing that we gave it.
        return Reply(said=Said(Outcome.NOTHING_HELD))
    body = written(wanted)
    answer = await sending.outgoing.send("POST", peer.requests, headers=_headers(sending), content=body)
    if answer.status != 201:
        return _refusal(answer, sending.now)
    await check_signature(peer, certificates_of(present()), answer.headers, answer.content, now=sending.now)
    accepted = understood(Accepted, answer.content)
    if accepted.subject_request_id != wanted.subject_request_id or not _is_echo(accepted, body):
        raise Doubtful("answer-of-another-request")
    expected = accepted.expected_completion_time
    return Reply(status=201, memo=_memo(expected, 0), poll_at=_next_poll(expected, 0, sending.now))


def _is_echo(accepted: Accepted, body: bytes) -> bool:
    return accepted.encoded_request == base64.b64encode(body).decode()


def _refusal(answer: Answer, now: datetime) -> Reply:
    reply = acknowledged(answer, now=now)
    # Anything but 201 is no acceptance, whatever else it may be.
    return reply if reply.word else Reply(status=answer.status, word="answer-not-understood")


def _headers(sending: Sending) -> dict[str, str]:
    return {"Content-Type": "application/json", "Accept": "application/json", **_credentials(sending.secrets)}


def _credentials(secrets: Sequence[str]) -> dict[str, str]:
    """What the processor gave the store to be let in with: a bearer token, or a scheme and what goes with it."""
    if not secrets:
        return {}
    return {"Authorization": secrets[0] if " " in secrets[0] else f"Bearer {secrets[0]}"}


# --- How far it is ---------------------------------------------------------------------------------------


async def poll(sending: Sending) -> Reply:
    """Ask for the state of what was accepted."""
    try:
        peer = await discovered(sending.outgoing, sending.to.url, now=sending.now)
        address = f"{peer.requests}/{sending.delivery_id}"
        answer = await sending.outgoing.send("GET", address, headers=_headers(sending))
        if answer.status != 200:
            return _refusal(answer, sending.now)
        await check_signature(
            peer, certificates_of(present()), answer.headers, answer.content, now=sending.now
        )
        status = understood(Status, answer.content)
        if status.subject_request_id != str(sending.delivery_id):
            raise Doubtful("answer-of-another-request")
        if (what := said_of(status.request_status, status.results_count)) is not None:
            return Reply(status=200, said=await _with_results(sending, status, what))
    except (Doubtful, NotSent) as error:
        return Reply(word=error.word)
    polls = int(sending.memo.get("polls", 0)) + 1
    expected = status.expected_completion_time
    return Reply(status=200, memo=_memo(expected, polls), poll_at=_next_poll(expected, polls, sending.now))


# --- What it found ---------------------------------------------------------------------------------------

RESULT_BYTES = 4 * 1024 * 1024
"""Of results that go into an archive; of larger ones it has the address."""
_ENDINGS = {
    "application/json": "json",
    "application/zip": "zip",
    "application/pdf": "pdf",
    "text/csv": "csv",
    "text/plain": "txt",
}


async def _with_results(sending: Sending, status: Status, said: Said) -> Said:
    """What it found, fetched as safely as all else. Raises NotSent for what may be there the next time."""
    url = status.results_url
    if sending.what != Verb.EXPORT or url is None or said.outcome is not Outcome.DONE:
        return said
    # Whoever is given the address of another server is not given the credential with it.
    headers = _headers(sending) if _origin(url) == _origin(sending.to.url) else {}
    try:
        answer = await results_outgoing(present()).send("GET", url, headers=headers)
    except NotSent as error:
        if error.word in {"reply-too-large", "address-not-allowed"}:
            return replace(said, links=[url])
        raise
    if answer.status >= 500 or answer.status == 429:
        raise NotSent("results-not-reachable")
    if answer.status != 200:
        return replace(said, links=[url])
    media_type = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type not in _ENDINGS:
        media_type = "application/octet-stream"
    name = f"results.{_ENDINGS.get(media_type, 'bin')}"
    return replace(said, files=[File(name, media_type, answer.content)])


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme.lower(), parts.netloc.lower()


def results_outgoing(settings: Settings) -> Outgoing:
    """What fetches results, as the operator allows it."""
    authorities = settings.outgoing_authorities
    return Outgoing(
        networks=settings.outgoing_networks,
        plain=settings.outgoing_http,
        authorities=str(authorities) if authorities else None,
        reply_bytes=RESULT_BYTES,
    )


def said_of(status: RequestStatus, results: int | None) -> Said | None:
    """What a status means for the processor's part; None while it goes on."""
    match status:
        case RequestStatus.COMPLETED:
            return Said(Outcome.DONE, counts={"results": results} if results is not None else {})
        case RequestStatus.CANCELLED:
            return Said(Outcome.FAILED, reason="cancelled")
        case _:
            return None


def _memo(expected: datetime, polls: int) -> dict[str, Any]:
    return {"expected": expected.isoformat(), "polls": polls}


def _next_poll(expected: datetime, polls: int, now: datetime) -> datetime:
    """Once a day and when it is due; after that with pauses that grow to a day."""
    if now < expected:
        return min(expected, now + _POLLED_EVERY)
    return now + min(_FIRST_PAUSE * 2 ** min(polls, 5), _POLLED_EVERY)
