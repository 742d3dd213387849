"""Alembic's entry."""

from libs.common.migrations import run

run()
