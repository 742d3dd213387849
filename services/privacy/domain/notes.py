"""What is written about requests."""

from enum import StrEnum


class About(StrEnum):
    """What a note is."""

    NOTE = "note"
    """Of the staff, for the staff."""
    EVIDENCE = "evidence"
    """What somebody saw of whoever asks: a letter, a document."""
    QUESTION = "question"
    """To the person; it stops the clock."""
    ANSWER = "answer"
    """Of the person; it starts the clock again."""
    REASON = "reason"
    """Of a decision; the person is told."""
    SETTLEMENT = "settlement"
    """Why somebody answered for a participant."""
