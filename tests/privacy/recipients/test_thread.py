"""From the registration of a recipient to a request that ends when it has said that it is done."""

from standardwebhooks import Webhook

from libs.common.events.privacy import Verb
from tests.privacy.recipients.conftest import Outside
from tests.privacy.recipients.receiver import done


async def test_an_erasure_ends_once_the_recipient_outside_has_erased(outside: Outside) -> None:
    platform = outside.platform
    recipient = await outside.active()
    outside.receiver.answering = done
    person = await platform.person()
    request_id = await outside.erased_but_outside(person)
    # Everybody inside has erased, and the request goes on: somebody has still to do so.
    assert await platform.state(person, request_id) == "running"
    await outside.deliver()
    [came] = outside.receiver.of("privacy.erase")
    Webhook(recipient["secret"]).verify(came.body, dict(came.headers))
    told = came.json["data"]
    assert told["request_id"] == str(request_id)
    assert told["person"]["emails"] == [person.email]
    part = await outside.part(person, request_id, recipient)
    assert (part["state"], part["counts"]) == ("done", {"contact": 1})
    assert await platform.state(person, request_id) == "checking"
    await platform.ask_keyring()
    await platform.answer_all(request_id, Verb.VERIFY_ERASED)
    assert await platform.state(person, request_id) == "completed"
