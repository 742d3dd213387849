"""Requests over HTTP, and the engine that carries them out, over real databases and a real keyring."""

from libs.common.events.privacy import KeysDestroyed, Outcome, Verb
from tests.privacy.conftest import Platform


async def test_an_erasure_destroys_keys_cleans_up_checks_and_ends(platform: Platform) -> None:
    person = await platform.person()
    request_id = await platform.opened(person, "erasure")
    assert await platform.tasks(request_id, Verb.ERASE) == []
    await platform.ask_keyring()
    assert [one.subject_id for one in await platform.published(KeysDestroyed)] == [person.subject_id]
    assert len(await platform.tasks(request_id, Verb.ERASE)) == 1
    await platform.answer_itself(request_id, Verb.ERASE)
    assert await platform.state(person, request_id) == "running"
    await platform.deliver(platform.answer(request_id, Verb.ERASE, Outcome.DONE, counts={"purchase": 2}))
    assert await platform.state(person, request_id) == "checking"
    await platform.ask_keyring()
    await platform.answer_itself(request_id, Verb.VERIFY_ERASED)
    assert await platform.state(person, request_id) == "checking"
    await platform.deliver(platform.answer(request_id, Verb.VERIFY_ERASED, Outcome.DONE))
    detail = await platform.detail(person, request_id)
    assert detail["state"] == "completed"
    assert [step["state"] for step in detail["steps"]] == [
        "received", "verifying", "deciding", "running", "checking", "completed",
    ]  # fmt: skip
    assert {(part["participant"], part["task"], part["state"]) for part in detail["parts"]} == {
        ("keyring", "erase", "retained"), ("privacy", "erase", "retained"), ("test-shop", "erase", "done"),
        ("keyring", "verify-erased", "done"), ("privacy", "verify-erased", "done"),
        ("test-shop", "verify-erased", "done"),
    }  # fmt: skip
