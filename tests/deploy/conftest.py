"""Tests of the local platform start from an environment that says nothing of it."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def clean(nothing_of_the_platform_set: None) -> None:
    """For every module of this folder."""
