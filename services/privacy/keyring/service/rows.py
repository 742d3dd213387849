"""What more than one of these files does with rows: to lock people, to delete keys."""

from base64 import b64encode
from collections.abc import Sequence
from typing import Any

from libs.common.db import Query
from services.privacy.keyring.schemas import BucketAsked, ErasureAsked, ExpiryAsked, LifeAsked

# The rows of people are locked first: what is being minted is then either seen here, or made after this.
LOCK = Query("""
    SELECT FROM subject
    JOIN unnest(CAST(:stores AS uuid[]), CAST(:subjects AS uuid[])) AS asked (store_id, subject_id)
        USING (store_id, subject_id)
    ORDER BY store_id, subject_id FOR UPDATE OF subject
""")
# Whatever is deleted was written to the log before: one of its ids stays here, to know the log by.
DELETE = Query("""
    WITH seen AS (
        UPDATE log_seen SET key_id = (CAST(:key_ids AS uuid[]))[1] WHERE cardinality(CAST(:key_ids AS uuid[])) > 0
    )
    DELETE FROM data_key WHERE key_id = ANY(CAST(:key_ids AS uuid[])) RETURNING key_id
""")


def generation_columns(lives: Sequence[ErasureAsked] | Sequence[LifeAsked]) -> dict[str, list[Any]]:
    """The columns by which a statement finds generations of people."""
    return {
        "stores": [asked.store_id for asked in lives],
        "subjects": [asked.subject_id for asked in lives],
        "generations": [asked.generation for asked in lives],
    }


def bucket_columns(buckets: Sequence[BucketAsked] | Sequence[ExpiryAsked]) -> dict[str, list[Any]]:
    """The columns by which a statement finds buckets of people."""
    return {
        **generation_columns(buckets),
        "retentions": [asked.retention for asked in buckets],
        "buckets": [asked.bucket for asked in buckets],
    }


def as_base64(secret: bytes) -> str:
    """As the keyring's answers carry bytes."""
    return b64encode(secret).decode()
