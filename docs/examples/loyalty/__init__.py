"""A sixth participant: a loyalty card that keeps a person's card name and points, and answers for them.

`docs/adding-a-participant.md` walks through it, and `tests/e2e/test_sixth_participant.py` runs it.
"""
