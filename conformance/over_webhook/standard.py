"""A recipient of our own webhooks, after Standard Webhooks."""

from datetime import UTC, datetime, timedelta

import orjson

from conformance.checks import Checks, NotApplicable, expect
from conformance.over_webhook.endpoint import Endpoint, described
from libs.common.events.privacy import Correction, Outcome, Verb
from libs.common.personal.vocabulary import Category
from services.privacy.recipients import signatures
from services.privacy.recipients.protocols import Reply, Said
from services.privacy.recipients.words import TEST, Role

check = Checks[Endpoint]("What webhooks check")

_NEAR = timedelta(minutes=4)
_STALE = timedelta(minutes=10)
_TERMINAL = frozenset({Outcome.DONE, Outcome.NOTHING_HELD, Outcome.RETAINED})


# --- Taking and refusing -------------------------------------------------------------------------------------


@check
async def takes_a_test(endpoint: Endpoint) -> str:
    """`privacy.test`, signed, is answered by a 2xx within 15 seconds: only then anything else is sent."""
    return _is_taken(await endpoint.send(endpoint.told(TEST)))


@check
async def takes_what_either_secret_signed(endpoint: Endpoint) -> str:
    """Of several signatures one has to fit: while a secret is replaced there are two."""
    secrets = [signatures.new_secret(), endpoint.secret]
    return _is_taken(await endpoint.send(endpoint.told(TEST), secrets=secrets))


@check
async def takes_what_was_signed_a_moment_ago(endpoint: Endpoint) -> str:
    """A timestamp may be up to five minutes off: clocks are."""
    for at in (-_NEAR, _NEAR):
        _is_taken(await endpoint.send(endpoint.told(TEST), now=datetime.now(UTC) + at))
    return "four minutes early and late"


@check
async def refuses_another_signature(endpoint: Endpoint) -> str:
    """What another secret signed is refused with a 4xx."""
    return _is_refused(await endpoint.send(endpoint.told(TEST), secrets=[signatures.new_secret()]))


@check
async def refuses_another_body(endpoint: Endpoint) -> str:
    """A body that is not the signed one is refused with a 4xx."""
    told, now = endpoint.told(TEST), datetime.now(UTC)
    body = endpoint.protocol.compose(told)
    headers = signatures.signed(str(told.delivery_id), body, [endpoint.secret], now=now)
    headers["Content-Type"] = "application/json"
    answer = await endpoint.outgoing.send("POST", endpoint.url, headers=headers, content=body + b" ")
    expect(400 <= answer.status < 500, f"status {answer.status}")
    return f"status {answer.status}"


@check
async def refuses_what_is_old(endpoint: Endpoint) -> str:
    """A timestamp of more than five minutes ago is refused with a 4xx: what was overheard cannot be sent again."""
    return _is_refused(await endpoint.send(endpoint.told(TEST), now=datetime.now(UTC) - _STALE))


@check
async def refuses_what_is_to_come(endpoint: Endpoint) -> str:
    """A timestamp of more than five minutes ahead is refused with a 4xx."""
    return _is_refused(await endpoint.send(endpoint.told(TEST), now=datetime.now(UTC) + _STALE))


@check
async def refuses_what_is_not_signed(endpoint: Endpoint) -> str:
    """What has no signature at all is refused with a 4xx."""
    return _is_refused(await endpoint.send(endpoint.told(TEST), secrets=[]))


@check
async def passes_over_an_unknown_type(endpoint: Endpoint) -> str:
    """A `type` of a later release is answered by a 2xx, and nothing is done."""
    return _is_taken(await endpoint.send(endpoint.told("of-a-later-release", endpoint.stranger())))


@check
async def ignores_unknown_fields(endpoint: Endpoint) -> str:
    """A field that a later release adds changes nothing."""
    told = endpoint.told(Verb.ERASE, endpoint.stranger())
    body = orjson.loads(endpoint.protocol.compose(told))
    body["data"]["of_a_later_release"] = body["of_a_later_release"] = {"a": [1]}
    return _is_taken(await endpoint.send(told, body=orjson.dumps(body)))


def _is_taken(reply: Reply) -> str:
    expect(not reply.word, described(reply))
    return f"status {reply.status}"


def _is_refused(reply: Reply) -> str:
    expect(reply.status is not None and 400 <= reply.status < 500, described(reply))
    return f"status {reply.status}"


# --- Doing, and saying so ------------------------------------------------------------------------------------


@check
async def answers_exports(endpoint: Endpoint) -> str:
    """`privacy.export` is answered by an outcome, in the reply or later at `answer_url`."""
    return _word(await _asked(endpoint, Verb.EXPORT))


@check
async def answers_rectifications(endpoint: Endpoint) -> str:
    """`privacy.rectify`, with its corrections, is answered by an outcome."""
    correction = Correction(category=Category.NAME, value="Canary Corrected")
    _is_processor(endpoint)
    return _word(await endpoint.ask(Verb.RECTIFY, endpoint.stranger(), corrections=[correction]))


@check
async def answers_erasures(endpoint: Endpoint) -> str:
    """`privacy.erase` is answered by an outcome."""
    return _word(await _asked(endpoint, Verb.ERASE))


@check
async def answers_restrictions(endpoint: Endpoint) -> str:
    """`privacy.restrict` is answered by an outcome."""
    return _word(await _asked(endpoint, Verb.RESTRICT))


@check
async def answers_lifted_restrictions(endpoint: Endpoint) -> str:
    """`privacy.lift-restriction` is answered by an outcome."""
    return _word(await _asked(endpoint, Verb.LIFT_RESTRICTION))


@check
async def answers_objections(endpoint: Endpoint) -> str:
    """`privacy.object` is answered by an outcome."""
    return _word(await _asked(endpoint, Verb.OBJECT))


@check
async def finds_whom_it_holds(endpoint: Endpoint) -> str:
    """Somebody you hold data of is found by their address: `export` is `done`, and for anybody else `nothing-held`."""
    _is_processor(endpoint)
    person, stranger = await endpoint.somebody(), endpoint.stranger()
    of_person, of_stranger = [await endpoint.ask(Verb.EXPORT, one) for one in (person, stranger)]
    expect(of_person.outcome is Outcome.DONE, f"of somebody it holds: {of_person.outcome}")
    expect(of_stranger.outcome is Outcome.NOTHING_HELD, f"of a stranger: {of_stranger.outcome}")
    return "found, and nobody else"


@check
async def erases(endpoint: Endpoint) -> str:
    """After `erase` nothing is held, unless it is `retained` on a ground."""
    _is_processor(endpoint)
    person = await endpoint.somebody()
    erased = await endpoint.ask(Verb.ERASE, person)
    expect(erased.outcome in {Outcome.DONE, Outcome.RETAINED}, f"erase was {erased.outcome}")
    after = await endpoint.ask(Verb.EXPORT, person)
    expect(
        erased.outcome is Outcome.RETAINED or after.outcome is Outcome.NOTHING_HELD,
        f"{after.outcome} after it",
    )
    return f"{erased.outcome}, then {after.outcome}"


@check
async def does_nothing_that_it_refuses(endpoint: Endpoint) -> str:
    """A refused delivery has no effect: whom another's signature would have erased is still there."""
    _is_processor(endpoint)
    person = await endpoint.somebody()
    told = endpoint.told(Verb.ERASE, person)
    await endpoint.send(told, secrets=[signatures.new_secret()])
    await endpoint.send(told, now=datetime.now(UTC) - _STALE)
    after = await endpoint.ask(Verb.EXPORT, person)
    expect(after.outcome is Outcome.DONE, f"{after.outcome} after what should have been refused")
    return "still there"


@check
async def does_once_what_comes_twice(endpoint: Endpoint) -> str:
    """The same `webhook-id` again is taken again, has no second effect, and gets the same answer."""
    _is_processor(endpoint)
    person = await endpoint.somebody()
    told = endpoint.told(Verb.ERASE, person)
    first = await endpoint.outcome(told, await endpoint.send(told))
    reply = await endpoint.send(told)
    expect(not reply.word, f"the second time: {described(reply)}")
    again = reply.said or endpoint.answers.get(told.delivery_id) or first
    expect(again == first, f"first {_word(first)}, then {_word(again)}")
    return f"twice {_word(first)}"


async def _asked(endpoint: Endpoint, verb: Verb) -> Said:
    _is_processor(endpoint)
    return await endpoint.ask(verb, endpoint.stranger())


def _is_processor(endpoint: Endpoint) -> None:
    if endpoint.role is Role.CONTROLLER:
        raise NotApplicable("a controller of its own is told, and need not say what it did")


def _word(said: Said) -> str:
    expect(said.outcome in _TERMINAL, f"{said.outcome}: {said.reason}")
    return f"{said.outcome} {dict(said.counts) or ''}".strip()
