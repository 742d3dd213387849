"""What is sent, how often, to whom, and what becomes of a request when the other side is slow, away, gone or wrong."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import orjson
import pytest
from sqlalchemy import text
from standardwebhooks import Webhook
from standardwebhooks.webhooks import WebhookVerificationError
from starlette.responses import JSONResponse, Response

from libs.common.events.privacy import Verb
from services.privacy.recipients import deliveries
from services.privacy.recipients.schedule import PAUSES, pause_after
from tests.privacy.recipients.conftest import Outside
from tests.privacy.recipients.receiver import Answering, Came, done, status, taken

LONG = timedelta(days=2)


def saying(**body: Any) -> Answering:
    return lambda _: JSONResponse(body)


async def fail_until_stuck(outside: Outside, recipient: dict[str, Any]) -> dict[str, Any]:
    for _ in range(len(PAUSES) + 1):
        await outside.deliver()
        outside.later(LONG)
    return await about_somebody(outside, recipient)


async def about_somebody(outside: Outside, recipient: dict[str, Any]) -> dict[str, Any]:
    [delivery] = [one for one in await outside.deliveries(recipient) if one["what"] != "test"]
    return delivery


# --- What is received, and what is done ------------------------------------------------------------------


async def test_received_is_never_done(outside: Outside) -> None:
    recipient = await outside.active()
    person = await outside.platform.person()
    request_id = await outside.erased_but_outside(person)
    await outside.deliver()
    part = await outside.part(person, request_id, recipient)
    assert (part["state"], part["recipient"]) == ("received", "Parcel & Co")
    outside.later(timedelta(days=10))
    await outside.deliver()
    assert len(outside.receiver.came) == 1
    assert await outside.platform.state(person, request_id) == "running"


async def test_whoever_decides_for_themselves_is_told_and_that_is_the_end(outside: Outside) -> None:
    recipient = await outside.active(role="controller")
    person = await outside.platform.person()
    request_id = await outside.erased_but_outside(person)
    await outside.deliver()
    assert (await outside.part(person, request_id, recipient))["state"] == "told"
    assert await outside.platform.state(person, request_id) == "checking"


@pytest.mark.parametrize("body", [b"OK", b"{}", b"null", b'{"status": "ok"}', b"\xff\xfe", b"[1]"])
async def test_a_body_that_means_nothing_is_an_acknowledgement(outside: Outside, body: bytes) -> None:
    recipient = await outside.active()
    outside.receiver.answering = lambda _: Response(body)
    person = await outside.platform.person()
    request_id = await outside.erased_but_outside(person)
    await outside.deliver()
    assert (await outside.part(person, request_id, recipient))["state"] == "received"


@pytest.mark.parametrize(
    "body",
    [
        {"outcome": "maybe"}, {"outcome": "done", "counts": {"Ada Lovelace": 1}}, {"outcome": "done", "more": 1},
        {"outcome": "done", "counts": {"contact": -1}},
        {"outcome": "retained", "retained": [{"kind": "invoice", "ground": "ask ada@vitrine.example"}]},
        {"outcome": "failed", "reason": "Ada is unknown"},
    ],
)  # fmt: skip
async def test_an_outcome_that_is_none_is_tried_again(outside: Outside, body: dict[str, Any]) -> None:
    recipient = await outside.active()
    outside.receiver.answering = saying(**body)
    person = await outside.platform.person()
    request_id = await outside.erased_but_outside(person)
    await outside.deliver()
    part = await outside.part(person, request_id, recipient)
    assert (part["state"], part["reason"]) == ("failed", "answer-not-understood")
    assert "Ada" not in orjson.dumps(await outside.deliveries(recipient)).decode()
    outside.receiver.answering = done
    outside.later(LONG)
    await outside.deliver()
    assert (await outside.part(person, request_id, recipient))["state"] == "done"


async def test_what_a_recipient_keeps_is_on_record(outside: Outside) -> None:
    recipient = await outside.active()
    kept = {"kind": "invoice", "count": 2, "ground": "Code de commerce, art. L123-22", "until": "2036-12-31"}
    outside.receiver.answering = saying(outcome="retained", retained=[kept])
    person = await outside.platform.person()
    request_id = await outside.erased_but_outside(person)
    await outside.deliver()
    part = await outside.part(person, request_id, recipient)
    assert part["state"] == "retained"
    assert {name: part["retained"][0][name] for name in kept} == kept


async def test_whoever_could_not_do_it_is_asked_again(outside: Outside) -> None:
    recipient = await outside.active()
    outside.receiver.answering = saying(outcome="failed", reason="database-down")
    person = await outside.platform.person()
    request_id = await outside.erased_but_outside(person)
    await outside.deliver()
    part = await outside.part(person, request_id, recipient)
    assert (part["state"], part["reason"]) == ("failed", "database-down")
    outside.receiver.answering = done
    outside.later(LONG)
    await outside.deliver()
    assert (await outside.part(person, request_id, recipient))["state"] == "done"


# --- Again and again -------------------------------------------------------------------------------------


def test_tries_are_spread_over_three_days_and_then_somebody_looks() -> None:
    total = sum(PAUSES, timedelta(0))
    assert timedelta(days=3) < total < timedelta(days=4)
    for failures, pause in enumerate(PAUSES, 1):
        found = pause_after(failures)
        assert found is not None and pause * 0.9 <= found <= pause * 1.1
    assert pause_after(len(PAUSES) + 1) is None
    asked = pause_after(1, asked=timedelta(hours=3))
    assert asked == timedelta(hours=3)


async def test_every_try_has_the_same_id_and_the_same_body_and_is_on_record(outside: Outside) -> None:
    recipient = await outside.active()
    outside.receiver.answering = status(503)
    person = await outside.platform.person()
    request_id = await outside.erased_but_outside(person)
    delivery = await fail_until_stuck(outside, recipient)
    came = outside.receiver.came
    assert len(came) == len(PAUSES) + 1
    assert len({one.body for one in came}) == len({one.headers["webhook-id"] for one in came}) == 1
    # Each is signed for the moment at which it was sent.
    assert len({one.headers["webhook-timestamp"] for one in came}) == len(came)
    assert (delivery["state"], delivery["next_try_at"]) == ("stuck", None)
    attempts = await outside.attempts(recipient, delivery)
    assert [one["number"] for one in attempts] == list(range(1, len(came) + 1))
    assert {(one["status"], one["word"]) for one in attempts} == {(503, "fails")}
    part = await outside.part(person, request_id, recipient)
    assert (part["state"], part["reason"]) == ("failed", "fails")
    outside.later(timedelta(days=30))
    await outside.deliver()
    assert len(outside.receiver.came) == len(came)


async def test_what_is_stuck_goes_on_when_somebody_drives_it(outside: Outside) -> None:
    recipient = await outside.active()
    outside.receiver.answering = status(500)
    person = await outside.platform.person()
    request_id = await outside.erased_but_outside(person)
    await fail_until_stuck(outside, recipient)
    outside.receiver.answering = done
    path = f"{outside.platform.path}/requests/{request_id}/parts/recipient-{recipient['id']}/erase/attempts"
    with outside.platform.at(outside.now):
        driven = await outside.platform.client.post(path, headers=outside.platform.officer())
    assert driven.status_code == 202, driven.text
    await outside.deliver()
    assert (await outside.part(person, request_id, recipient))["state"] == "done"


async def test_whoever_asks_for_time_is_left_alone_for_so_long_and_not_for_ever(outside: Outside) -> None:
    recipient = await outside.active()
    person = await outside.platform.person()
    await outside.erased_but_outside(person)
    outside.receiver.answering = status(429, Retry_After="7200")
    await outside.deliver()
    outside.later(timedelta(minutes=110))
    await outside.deliver()
    assert len(outside.receiver.came) == 1
    outside.receiver.answering = status(503, Retry_After="999999999")
    outside.later(timedelta(minutes=20))
    await outside.deliver()
    assert len(outside.receiver.came) == 2
    outside.later(timedelta(hours=25))
    outside.receiver.answering = done
    await outside.deliver()
    [delivery, _] = await outside.deliveries(recipient)
    assert delivery["state"] == "done"


async def test_a_redirect_is_a_failure(outside: Outside) -> None:
    recipient = await outside.active()
    outside.receiver.answering = status(308, Location=outside.receiver.url)
    person = await outside.platform.person()
    request_id = await outside.erased_but_outside(person)
    await outside.deliver()
    assert (await outside.part(person, request_id, recipient))["reason"] == "redirected"
    assert len(outside.receiver.came) == 1


async def test_one_that_is_away_for_hours_is_reached_when_it_is_back(outside: Outside) -> None:
    recipient = await outside.active()
    outside.receiver.answering = done
    person = await outside.platform.person()
    request_id = await outside.erased_but_outside(person)
    async with outside.platform.database.session(outside.platform.store_id) as session:
        back = text("UPDATE recipient SET url = :url WHERE id = :id")
        await session.execute(back, {"id": recipient["id"], "url": "http://127.0.0.1:9/hook"})
    for _ in range(3):
        await outside.deliver()
        outside.later(timedelta(hours=3))
    assert (await outside.part(person, request_id, recipient))["reason"] == "not-reachable"
    async with outside.platform.database.session(outside.platform.store_id) as session:
        await session.execute(back, {"id": recipient["id"], "url": outside.receiver.url})
    await outside.deliver()
    assert (await outside.part(person, request_id, recipient))["state"] == "done"


# --- Paused, disabled, gone ------------------------------------------------------------------------------


async def test_a_pause_delays_and_loses_nothing(outside: Outside) -> None:
    recipient = await outside.active()
    outside.receiver.answering = done
    await outside.call("POST", f"/{recipient['id']}/pausing")
    person = await outside.platform.person()
    request_id = await outside.erased_but_outside(person)
    outside.later(timedelta(days=20))
    await outside.deliver()
    assert outside.receiver.came == []
    assert (await outside.part(person, request_id, recipient))["state"] == "waiting"
    await outside.call("POST", f"/{recipient['id']}/resumption")
    await outside.deliver()
    assert (await outside.part(person, request_id, recipient))["state"] == "done"


async def settle(outside: Outside, request_id: UUID, recipient: dict[str, Any]) -> Any:
    path = f"{outside.platform.path}/requests/{request_id}/parts/recipient-{recipient['id']}/erase/settlement"
    body = {"outcome": "done", "ground": "unreachable", "reason": "The company is dissolved."}
    return await outside.platform.client.post(path, json=body, headers=outside.platform.officer())


async def test_one_that_is_gone_is_disabled_and_somebody_answers_for_it(outside: Outside) -> None:
    recipient = await outside.active()
    outside.receiver.answering = status(410)
    person, other = await outside.platform.person(), await outside.platform.person()
    request_id = await outside.erased_but_outside(person)
    waiting = await outside.erased_but_outside(other)
    await outside.deliver()
    seen = await outside.one(recipient)
    assert (seen["state"], seen["why"]) == ("disabled", "gone")
    for who, id_ in ((person, request_id), (other, waiting)):
        part = await outside.part(who, id_, recipient)
        # Both may have been sent before the first reply was read.
        assert part["state"] == "failed" and part["reason"] in {"gone", "recipient-disabled"}
    # Nothing is sent any more, and nothing is called done by that.
    outside.later(timedelta(days=5))
    await outside.deliver()
    assert await outside.platform.state(person, request_id) == "running"
    path = f"{outside.platform.path}/requests/{request_id}/parts/recipient-{recipient['id']}/erase/attempts"
    driven = await outside.platform.client.post(path, headers=outside.platform.officer())
    assert (driven.status_code, driven.json()["type"]) == (409, "/problems/recipient-disabled")
    settled = await settle(outside, request_id, recipient)
    assert settled.status_code == 200, settled.text
    assert (await outside.part(person, request_id, recipient))["state"] == "settled"
    assert await outside.platform.state(person, request_id) == "checking"
    # A request that begins later knows it no more.
    third = await outside.platform.person()
    later = await outside.platform.opened(third, "erasure")
    parts = (await outside.platform.detail(third, later))["parts"]
    assert not [one for one in parts if one["participant"].startswith("recipient-")]


@pytest.mark.parametrize("is_stuck", [False, True])
async def test_nothing_is_sent_any_more_to_whom_somebody_has_answered_for(
    outside: Outside, is_stuck: bool
) -> None:
    """Nor does anything count as stuck that nobody has to look at."""
    recipient = await outside.active()
    outside.receiver.answering = status(503)
    person = await outside.platform.person()
    request_id = await outside.erased_but_outside(person)
    await (fail_until_stuck(outside, recipient) if is_stuck else outside.deliver())
    came = len(outside.receiver.came)
    assert (await settle(outside, request_id, recipient)).status_code == 200
    outside.later(timedelta(days=5))
    await outside.deliver()
    assert len(outside.receiver.came) == came > 0
    delivery = await about_somebody(outside, recipient)
    assert (delivery["state"], delivery["next_try_at"]) == ("void", None)


async def test_whoever_is_registered_during_a_request_has_no_part_in_it(outside: Outside) -> None:
    person = await outside.platform.person()
    request_id = await outside.platform.opened(person, "erasure")
    await outside.active()
    parts = (await outside.platform.detail(person, request_id))["parts"]
    assert not [one for one in parts if one["participant"].startswith("recipient-")]
    assert not await outside.platform.tasks(request_id, Verb.REFER)


async def test_nothing_about_anybody_goes_to_whom_no_test_has_reached(outside: Outside) -> None:
    recipient = await outside.registered()
    outside.receiver.answering = done
    person = await outside.platform.person()
    request_id = await outside.erased_but_outside(person)
    await outside.deliver()
    assert outside.receiver.came == []
    await outside.call("POST", f"/{recipient['id']}/tests")
    await outside.deliver()
    await outside.deliver()
    assert (await outside.part(person, request_id, recipient))["state"] == "done"


# --- Secrets ---------------------------------------------------------------------------------------------


async def test_while_a_secret_changes_both_check(outside: Outside) -> None:
    recipient = await outside.active()
    outside.receiver.answering = status(500)
    person = await outside.platform.person()
    await outside.erased_but_outside(person)
    await outside.deliver()
    rotated = (await outside.call("POST", f"/{recipient['id']}/secret-rotations", {})).json()
    outside.later(timedelta(hours=1))
    await outside.deliver()
    outside.later(timedelta(days=2))
    outside.receiver.answering = taken
    await outside.deliver()
    before, during, after = outside.receiver.came

    def checks(came: Came, secret: str) -> bool:
        # The package has a clock of its own: what was sent later by ours is looked at as of then.
        hook = Webhook(secret)
        hook._Webhook__verify_timestamp = _as_it_says  # type: ignore[attr-defined]
        try:
            hook.verify(came.body, dict(came.headers))
        except WebhookVerificationError:
            return False
        return True

    old, new = recipient["secret"], rotated["secret"]
    assert (checks(before, old), checks(before, new)) == (True, False)
    assert (checks(during, old), checks(during, new)) == (True, True)
    assert (checks(after, old), checks(after, new)) == (False, True)


def _as_it_says(timestamp: str) -> Any:
    return datetime.fromtimestamp(float(timestamp), tz=UTC)


async def test_a_secret_that_somebody_knows_ends_at_once(outside: Outside) -> None:
    recipient = await outside.active()
    rotated = await outside.call("POST", f"/{recipient['id']}/secret-rotations", {"at_once": True})
    await outside.call("POST", f"/{recipient['id']}/tests")
    await outside.deliver()
    [came] = outside.receiver.came
    Webhook(rotated.json()["secret"]).verify(came.body, dict(came.headers))
    with pytest.raises(WebhookVerificationError):
        Webhook(recipient["secret"]).verify(came.body, dict(came.headers))


# --- Crashes ---------------------------------------------------------------------------------------------


async def test_a_crash_after_the_sending_sends_the_same_again(
    outside: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipient = await outside.active()
    outside.receiver.answering = done
    person = await outside.platform.person()
    request_id = await outside.erased_but_outside(person)

    async def crash(*_: Any, **__: Any) -> None:
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr(deliveries, "_record", crash)
        with pytest.raises(RuntimeError):
            await outside.deliver()
    assert (await outside.part(person, request_id, recipient))["state"] == "waiting"
    # While the lease lasts nobody else sends it.
    await outside.deliver()
    assert len(outside.receiver.came) == 1
    outside.later(deliveries.LEASE + timedelta(seconds=1))
    await outside.deliver()
    first, second = outside.receiver.came
    assert (first.body, first.headers["webhook-id"]) == (second.body, second.headers["webhook-id"])
    assert (await outside.part(person, request_id, recipient))["state"] == "done"


async def test_two_workers_send_a_thing_once(outside: Outside) -> None:
    recipient = await outside.active()
    outside.receiver.answering, outside.receiver.delay = done, 0.2
    person = await outside.platform.person()
    request_id = await outside.erased_but_outside(person)
    await asyncio.gather(*(deliveries.deliver(outside.work()) for _ in range(4)))
    assert len(outside.receiver.came) == 1
    assert (await outside.part(person, request_id, recipient))["state"] == "done"


# --- By hand ---------------------------------------------------------------------------------------------


async def test_what_was_taken_can_be_sent_once_more_and_changes_nothing(outside: Outside) -> None:
    recipient = await outside.active()
    outside.receiver.answering = done
    person = await outside.platform.person()
    request_id = await outside.erased_but_outside(person)
    await outside.deliver()
    [delivery, _] = await outside.deliveries(recipient)
    outside.receiver.answering = status(500)
    again = await outside.call("POST", f"/{recipient['id']}/deliveries/{delivery['id']}/resending")
    assert again.status_code == 202, again.text
    await outside.deliver()
    outside.later(LONG)
    await outside.deliver()
    first, second = outside.receiver.came
    assert first.body == second.body
    [delivery, _] = await outside.deliveries(recipient)
    assert (delivery["state"], delivery["attempts"]) == ("done", 2)
    assert (await outside.part(person, request_id, recipient))["state"] == "done"


async def test_a_slow_recipient_keeps_nobody_else_waiting_for_long(
    outside: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliveries, "_OF_ONE_AT_ONCE", 1)
    recipient = await outside.active()
    for _ in range(3):
        await outside.call("POST", f"/{recipient['id']}/tests")
    assert await deliveries.deliver(outside.work()) == 1
    assert len(outside.receiver.came) == 1


# --- What is not left behind -----------------------------------------------------------------------------


async def test_nothing_of_the_person_lies_open_in_what_is_kept_of_it(
    outside: Outside, caplog: pytest.LogCaptureFixture
) -> None:
    await outside.active()
    word = f"canary{uuid4().hex}"
    outside.receiver.answering = saying(outcome="done", counts={"contact": 1}, reason=word)
    platform = outside.platform
    person = await platform.person()
    await outside.erased_but_outside(person)
    with caplog.at_level("DEBUG"):
        await outside.deliver()
    assert outside.receiver.came and person.email.encode() in outside.receiver.came[0].body
    async with platform.database.session(platform.store_id) as session:
        rows: list[str] = []
        for table in (
            "delivery",
            "delivery_attempt",
            "request_reference",
            "task",
            "evidence_pending",
            "outbox",
        ):
            rows += (await session.scalars(text(f"SELECT CAST(held AS text) FROM {table} AS held"))).all()
    assert rows and not [row for row in rows if person.email in row]
    assert person.email not in caplog.text
