"""What routes say of themselves in the OpenAPI document beyond their types."""

from typing import Any

from libs.common.http import PROBLEM, ProblemDocument

_SAID = {
    401: "No valid access token",
    403: "The role does not allow this",
    404: "It does not exist, or belongs to somebody else",
    409: "The present state does not allow this",
    412: "Somebody changed it first",
    428: "An If-Match header is needed",
}

ANYBODY: dict[str, Any] = {"security": [{}]}
"""The access token that FastAPI documents may be left out."""


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The problems a route may answer with, besides those that every route may."""
    return {
        status: {"model": ProblemDocument, "content": {PROBLEM: {}}, "description": _SAID[status]}
        for status in statuses
    }
