"""The evidence log's tables. What is in the log stays as it is: triggers refuse any change, whoever makes it."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Identity, Index, PrimaryKeyConstraint, UniqueConstraint, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from libs.common.db import impersonal
from services.privacy.models import Base

_WORD = impersonal("a fixed word")
_FACTS = impersonal("ids, fixed words, counts, times, hashes and signatures")


class EvidencePending(Base):
    """A step that was noted with the change it is about, and has no place in its store's log yet."""

    __tablename__ = "evidence_pending"
    __table_args__ = (PrimaryKeyConstraint("store_id", "id"),)

    id: Mapped[int] = mapped_column(Identity(always=True))
    """Two steps of one request are numbered in their order, since whoever notes one has locked the request."""
    store_id: Mapped[UUID]
    entry_id: Mapped[UUID] = mapped_column(server_default=func.gen_random_uuid())
    """Random: without the entry nobody guesses what its hash is of."""
    request_id: Mapped[UUID]
    kind: Mapped[str] = mapped_column(info=_WORD)
    facts: Mapped[dict[str, Any]] = mapped_column(JSONB, info=_FACTS)
    at: Mapped[datetime] = mapped_column(server_default=func.now())


class EvidenceLeaf(Base):
    """An entry's place in the tree of its store, and its hash. It holds nothing else and stays for ever."""

    __tablename__ = "evidence_leaf"
    __table_args__ = (
        PrimaryKeyConstraint("store_id", "index"),
        UniqueConstraint("store_id", "hash", name="uq_evidence_leaf_hash"),
    )

    store_id: Mapped[UUID]
    index: Mapped[int]
    hash: Mapped[bytes] = mapped_column(info=impersonal("SHA-256 of an entry"))
    nodes: Mapped[bytes] = mapped_column(info=impersonal("hashes of the subtrees that this leaf completes"))
    """One after the other, from the lowest; empty at even indexes."""


class EvidenceEntry(Base):
    """What an entry says, as the bytes that were hashed: kept for some years, apart from its place in the tree."""

    __tablename__ = "evidence_entry"
    __table_args__ = (
        PrimaryKeyConstraint("store_id", "index"),
        Index("ix_evidence_entry_request_id", "request_id", "index"),
        Index("ix_evidence_entry_at", "at"),
        Index(
            "ix_evidence_entry_ended", "store_id", "at",
            postgresql_where=text("kind IN ('completed', 'refused', 'cancelled')"),
        ),
    )  # fmt: skip

    store_id: Mapped[UUID]
    index: Mapped[int]
    request_id: Mapped[UUID]
    kind: Mapped[str] = mapped_column(info=_WORD)
    at: Mapped[datetime]
    content: Mapped[bytes] = mapped_column(info=_FACTS)


class EvidenceHead(Base):
    """A signed head. There is one of a size, so a log cannot be forked here."""

    __tablename__ = "evidence_head"
    __table_args__ = (PrimaryKeyConstraint("store_id", "size"),)

    store_id: Mapped[UUID]
    size: Mapped[int]
    root: Mapped[bytes] = mapped_column(info=impersonal("SHA-256 over a log"))
    signed_at: Mapped[datetime]
    signature: Mapped[str] = mapped_column(info=impersonal("a JWS of the columns beside it"))


class PublishedKey(Base):
    """A public key that something was signed with: it stays published when another has taken its place."""

    __tablename__ = "published_key"

    kid: Mapped[str] = mapped_column(primary_key=True, info=impersonal("thumbprint of a key"))
    key: Mapped[dict[str, Any]] = mapped_column(JSONB, info=impersonal("a public key"))
    since: Mapped[datetime] = mapped_column(server_default=func.now())


class CertificateDue(Base):
    """A request whose certificate is to be issued, once no opened key can be in any memory."""

    __tablename__ = "certificate_due"
    __table_args__ = (Index("ix_certificate_due_due_at", "due_at"),)

    request_id: Mapped[UUID] = mapped_column(primary_key=True)
    store_id: Mapped[UUID]
    due_at: Mapped[datetime]


class Certificate(Base):
    """What was certified about a request. The first is never changed: one that completes it follows."""

    __tablename__ = "certificate"
    __table_args__ = (PrimaryKeyConstraint("request_id", "number"),)

    request_id: Mapped[UUID]
    number: Mapped[int]
    """1, and more once what was kept has ended."""
    id: Mapped[UUID]
    store_id: Mapped[UUID]
    issued_at: Mapped[datetime]
    size: Mapped[int]
    """Of the log, under the head that the certificate names."""
    content: Mapped[bytes] = mapped_column(info=_FACTS)
    """The bytes that were signed."""
    signature: Mapped[str] = mapped_column(info=impersonal("a detached JWS of the content"))
