"""Whoever takes part says so first: its name, its key, and what it keeps."""

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from conformance.checks import Checks, Missing, expect
from conformance.scene import Scene
from libs.common.auth import PLATFORM_STORE
from libs.common.events.privacy import ParticipantAnnounced
from libs.common.personal.vocabulary import Category, LegalBasis, Purpose, Retention

check = Checks[Scene]("What announcing checks")


@check
async def announces_itself(scene: Scene) -> str:
    """`participant-announced` comes on `privacy.participants`, under the platform's own store, with your name in the
    key.
    """
    heard = await scene.talk.hear(
        ParticipantAnnounced, lambda one: one.participant == scene.participant, within=scene.start_seconds
    )
    if heard is None:
        others = sorted({one.data.participant for one in scene.talk.heard(ParticipantAnnounced)})
        raise Missing(f"not within {scene.start_seconds:g} s; announced: {', '.join(others) or 'nobody'}")
    expect(heard.envelope.store_id == PLATFORM_STORE, f"under the store {heard.envelope.store_id}")
    expect(heard.record.key == f"{PLATFORM_STORE}:{scene.participant}", "another key than `store:name`")
    if scene.admit is not None:
        await scene.admit(heard.data)
        scene.admit = None
    return f"announced as {heard.data.participant}"


@check
async def announces_its_public_key(scene: Scene) -> str:
    """The announcement has your public key for ES256: a JWK of the curve P-256, without its private half."""
    key = scene.announced.public_key
    expect((key.get("kty"), key.get("crv")) == ("EC", "P-256"), "no key of the curve P-256")
    expect({"x", "y"} <= key.keys(), "the key lacks its point")
    expect("d" not in key, "the private half was announced")
    return f"an EC key of P-256, kid {key.get('kid', 'absent')}"


@check
async def announces_what_it_keeps(scene: Scene) -> str:
    """The data map has an entry for each place: service, table, categories, purposes, legal basis, retention and what
    an erasure does, in the words of the vocabulary.
    """
    entries = [one for one in scene.announced.data_map if "copy" not in one]
    expect(entries, "an empty data map")
    for entry in entries:
        where = entry.get("table", "an entry without a table")
        expect({"service", "table", "on_erase"} <= entry.keys(), f"{where} lacks service, table or on_erase")
        expect(entry["service"] == scene.participant, f"{where} is said to be of {entry['service']}")
        if "kind" in entry:
            lacking = {"categories", "purposes", "legal_basis", "retention"} - entry.keys()
            expect(not lacking, f"{where} lacks {', '.join(sorted(lacking))}")
            words = {one for field in entry["categories"].values() for one in field}
            for given, known in (
                (words, Category),
                (entry["purposes"], Purpose),
                ([entry["legal_basis"]], LegalBasis),
                ([entry["retention"].get("name")], Retention),
            ):
                unknown = sorted(set(given) - {one.value for one in known})
                expect(not unknown, f"{where}: not in the vocabulary: {', '.join(map(str, unknown))}")
    return f"{len(entries)} entries"


@check
async def announces_valid_schemas(scene: Scene) -> str:
    """The `schema` of an entry, where there is one, is a JSON Schema 2020-12."""
    schemas = {one["table"]: one["schema"] for one in scene.announced.data_map if "schema" in one}
    for table, schema in schemas.items():
        try:
            Draft202012Validator.check_schema(schema)
        except SchemaError as error:
            raise Missing(f"{table}: {error.message}") from None
    return f"{len(schemas)} schemas"
