"""An export is complete, sealed, and bound to its answer."""

from hashlib import sha256
from typing import Any, cast
from uuid import uuid4

from jsonschema import Draft202012Validator

from conformance.checks import Checks, Missing, NotApplicable, expect
from conformance.scene import Person, Scene, categories
from libs.common.events.privacy import CHUNK_BYTES, ExportChunk, Outcome, TaskAnswered, Verb
from libs.common.personal.vocabulary import Category, Purpose, Source

check = Checks[Scene]("What exporting checks")

_OF_A_RECORD = frozenset({"table", "kind", "facts", "data", "attached"})


@check
async def exports_what_it_holds(scene: Scene) -> str:
    """`export` is answered `done`, and what you hold of the person can be read in the boxes."""
    person = await scene.somebody()
    answered, records = await scene.export(person)
    expect(answered.outcome is Outcome.DONE, f"export was {answered.outcome}")
    found = [canary for canary in person.canaries if canary in str(records)]
    expect(found, f"{len(records)} records, and neither the name nor the address of the person in them")
    return f"{len(records)} records in {answered.chunks} chunks"


@check
async def numbers_its_chunks(scene: Scene) -> str:
    """Chunks are numbered from 0, as many as the answer says, and come before it."""
    _, answered, chunks = await _exported(scene)
    numbers = [one.sequence for one in chunks]
    expect(
        numbers == list(range(answered.chunks)), f"{answered.chunks} chunks by the answer, came: {numbers}"
    )
    heard = [
        one.data
        for one in scene.talk.received
        if isinstance(one.data, (ExportChunk, TaskAnswered)) and one.data.request_id == answered.request_id
    ]
    expect(isinstance(heard[-1], TaskAnswered), "a chunk came after its answer")
    return f"{answered.chunks} chunks, then the answer"


@check
async def seals_its_chunks(scene: Scene) -> str:
    """Each chunk is one box of at most 512 KiB, of the kind `ExportedRecords`, under the person's key `export` with the
    request's id as its bucket: so it opens for the privacy service, and ends with the download.
    """
    person, answered, chunks = await _exported(scene)
    largest = max((len(one.box.payload) for one in chunks), default=0)
    expect(largest <= CHUNK_BYTES, f"a box of {largest} bytes")
    await scene.opened(person, chunks)
    [keys] = await scene.keyring.status([(person.store_id, person.subject_id)])
    under = {(key.retention, key.bucket) for key in keys if key.key_id in {one.box.key_id for one in chunks}}
    expect(under == {("export", str(answered.request_id))}, f"sealed under {sorted(under) or 'no live key'}")
    return f"{len(chunks)} boxes, the largest of {largest} bytes"


@check
async def binds_its_chunks(scene: Scene) -> str:
    """`digest` is SHA-256, in hex, over the SHA-256 of the bytes of each box in order."""
    _, answered, chunks = await _exported(scene)
    digest = sha256(b"".join(sha256(one.box.payload).digest() for one in chunks)).hexdigest()
    expect(answered.digest == digest, f"{answered.digest or 'no digest'}, where it should be {digest}")
    return f"{digest[:16]}…"


@check
async def shapes_its_records(scene: Scene) -> str:
    """A record has `table`, `kind`, `facts`, `data` and `attached`, names a table of your data map, and is counted."""
    answered, records = await scene.export(await scene.somebody())
    tables = {entry.get("table") for entry in scene.announced.data_map}
    for record in records:
        expect(
            record.keys() >= _OF_A_RECORD,
            f"a record without {', '.join(sorted(_OF_A_RECORD - record.keys()))}",
        )
        expect(record["table"] in tables, f"a record of {record['table']}, which the data map does not have")
    counted = sum(answered.counts.values())
    expect(counted == len(records), f"{counted} rows by the answer, {len(records)} records")
    return f"{len(records)} records, counted as {answered.counts}"


@check
async def exports_what_its_schemas_say(scene: Scene) -> str:
    """A record is as the `schema` of its entry in the data map says, where that has one."""
    _, records = await scene.export(await scene.somebody())
    schemas = {one["table"]: one["schema"] for one in scene.announced.data_map if "schema" in one}
    fitting = [record for record in records if record["table"] in schemas]
    if not fitting:
        raise NotApplicable("the data map has no schema of what was exported")
    for record in fitting:
        error = next(Draft202012Validator(schemas[record["table"]]).iter_errors(_shown(record)), None)
        expect(error is None, f"{record['table']}: {error and error.message}")
    return f"{len(fitting)} records are as their schemas say"


@check
async def exports_for_taking_elsewhere(scene: Scene) -> str:
    """With `portable` an export has what the person gave, and nothing that was observed or derived."""
    answered, records = await scene.export(await scene.somebody(), portable=True)
    given = {
        entry["table"]
        for entry in scene.announced.data_map
        if "table" in entry and entry.get("source", Source.PERSON) == Source.PERSON
    }
    others = sorted({record["table"] for record in records} - given)
    expect(not others, f"portable, and yet of {', '.join(others)}")
    return f"{answered.outcome}, {len(records)} records"


@check
async def exports_nothing_of_others(scene: Scene) -> str:
    """An export has nothing of another person of the same store, nor of the same subject at another store."""
    person, neighbour = await scene.somebody(), await scene.somebody()
    elsewhere = Person(uuid4(), person.subject_id, 1, f"other-{person.email}", f"Other {person.name}")
    scene.people.append(elsewhere)
    await scene.open_store(elsewhere.store_id)
    expect(await scene.plant(elsewhere), "it did not take the data of a person of another store")
    _, records = await scene.export(person)
    others = [one for one in (*neighbour.canaries, *elsewhere.canaries) if one in str(records)]
    expect(not others, "what another person's data says was exported")
    return f"{len(records)} records of one person"


@check
async def refers(scene: Scene) -> str:
    """`refer` is answered with the addresses and numbers by which outsiders know the person: `references` is a box of
    the kind `References`, under the person's key `request` with the request's id as its bucket; `digest` its SHA-256.
    """
    held = categories(scene)
    if not any(Category(one) in {Category.EMAIL, Category.PHONE_NUMBER} for one in held):
        raise NotApplicable("it keeps no addresses and no numbers")
    person, request_id = await scene.somebody(), uuid4()
    answered = await scene.ask(Verb.REFER, person, request_id=request_id)
    box = answered.references
    if box is None:
        raise Missing(f"{answered.outcome}, without references")
    expect(answered.digest == sha256(box.payload).hexdigest(), "the digest is not that of the box")
    known = await scene.vault.open(
        box,
        store_id=person.store_id,
        subject_id=person.subject_id,
        purpose=Purpose.RIGHTS_OF_THE_PERSON,
    )
    expect(
        Category.EMAIL not in held or person.email in known.emails, "the person's address is not among them"
    )
    return f"{len(known.emails)} addresses, {len(known.phones)} numbers"


async def _exported(scene: Scene) -> tuple[Person, TaskAnswered, list[ExportChunk]]:
    person, request_id = await scene.somebody(), uuid4()
    answered = await scene.ask(Verb.EXPORT, person, request_id=request_id)
    expect(answered.chunks > 0, f"{answered.outcome}, without a chunk")
    return person, answered, [one.data for one in scene.chunks(request_id)]


def _shown(value: Any) -> Any:
    """As it is in an archive, which its schema is about: attachments are files there."""
    match value:
        case {"name": name, "media_type": media_type, "content": _, **more} if not more:
            return {"name": name, "media_type": media_type, "file": f"files/{name}"}
        case dict():
            return {name: _shown(one) for name, one in cast("dict[str, Any]", value).items()}
        case list():
            return [_shown(one) for one in cast("list[Any]", value)]
        case _:
            return value
