"""The words in which recipients and deliveries are spoken of."""

from enum import StrEnum


class Role(StrEnum):
    """What a recipient is in the law's eyes."""

    PROCESSOR = "processor"
    """It works for the store (GDPR, Art. 28), and must say that it has done what is asked: received is never done."""
    CONTROLLER = "controller"
    """It decides for itself, and is to be told (Art. 19): that it has heard of it is the end."""


class Protocol(StrEnum):
    """How a recipient is spoken to."""

    WEBHOOK = "webhook"
    """Standard Webhooks, with our payload."""
    SHOPIFY = "shopify"
    """Shopify's three compliance webhooks, so that an app written for them works as it is."""
    OPENDSR = "opendsr"
    """OpenDSR 2.0."""


class RecipientState(StrEnum):
    """Whether it is sent to."""

    TESTING = "testing"
    """Registered; nothing about anybody is sent before a test has reached it."""
    ACTIVE = "active"
    PAUSED = "paused"
    """What is for it waits."""
    DISABLED = "disabled"
    """By its merchant, or because it said that it is gone (410). It has a part in nothing new."""


class Disabled(StrEnum):
    """Why one is."""

    BY_MERCHANT = "by-merchant"
    GONE = "gone"


class DeliveryState(StrEnum):
    """Where something is on its way to a recipient.

    collecting ──► sending ──► received ──► done
                      ├─────────────────────►
                      ├──► stuck ──► sending
                      └──► void ◄── collecting, received, stuck
    """

    COLLECTING = "collecting"
    """It is still being found out by what the recipient knows the person."""
    SENDING = "sending"
    """To be sent, now or at its next try; or waiting for a recipient that is paused."""
    RECEIVED = "received"
    """Acknowledged; whoever took it has still to say that it is done."""
    DONE = "done"
    """Nothing more is to come of it: answered, or heard by whom only had to hear it."""
    STUCK = "stuck"
    """Not taken for three days, or refused for good: somebody has to look at it."""
    VOID = "void"
    """Its person was erased, nothing is known by which anybody could find them, a later one replaced it, or somebody
    answered for the recipient."""


TEST = "test"
STORE_ENDED = "store-ended"
"""What is sent besides the verbs of tasks: a test, and that a store has ended."""
