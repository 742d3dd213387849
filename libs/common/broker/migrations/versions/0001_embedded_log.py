"""The embedded log: topics, records, groups."""

from alembic import op

revision = "0001"
down_revision = None

_STATEMENTS = """
-- The identity of the log: whoever sees another id knows that everything before is gone.
CREATE TABLE cluster (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    id uuid NOT NULL DEFAULT gen_random_uuid()
);
INSERT INTO cluster DEFAULT VALUES;

-- The row is locked until the publisher commits: offsets become visible in order and without gaps.
CREATE TABLE topic_partition (
    topic text NOT NULL,
    partition integer NOT NULL,
    next_offset bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (topic, partition)
) WITH (fillfactor = 50);

CREATE TABLE record (
    topic text NOT NULL,
    partition integer NOT NULL,
    position bigint NOT NULL,
    key text NOT NULL,
    headers jsonb NOT NULL,
    value bytea NOT NULL,
    produced_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (topic, partition, position)
);

-- A member whose lease has run out is removed by the next one that looks.
CREATE TABLE member (
    group_name text NOT NULL,
    member uuid NOT NULL,
    topics text[] NOT NULL,
    lease_until timestamptz NOT NULL,
    PRIMARY KEY (group_name, member)
) WITH (fillfactor = 50);

-- The epoch grows with every change of hands: what was read in an older one can no longer be committed.
CREATE TABLE assignment (
    group_name text NOT NULL,
    topic text NOT NULL,
    partition integer NOT NULL,
    member uuid,
    epoch bigint NOT NULL DEFAULT 0,
    committed bigint NOT NULL,
    PRIMARY KEY (group_name, topic, partition),
    FOREIGN KEY (group_name, member) REFERENCES member ON DELETE SET NULL (member)
) WITH (fillfactor = 50);
CREATE INDEX ix_assignment_member ON assignment (group_name, member);
"""


def upgrade() -> None:
    for statement in _STATEMENTS.split(";\n"):
        if statement.strip():
            op.execute(statement)
