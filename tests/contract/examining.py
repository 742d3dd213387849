"""What Schemathesis checks of every answer besides its own list; loaded into its process."""

from typing import Any

import schemathesis
from schemathesis import Case, CheckContext, Response

PROBLEM = "application/problem+json"
FINER = frozenset({"int_type", "value_error", "string_too_short"})
"""What JSON Schema cannot say: 1.0 is an integer to it and not to us, `format: email` knows nothing of reserved
domains, and a title of spaces alone is empty."""


@schemathesis.check
def refusals_are_problems(_ctx: CheckContext, response: Response, _case: Case[Any]) -> None:
    """RFC 9457, without a page for people in between."""
    if response.status_code < 400:
        return
    assert response.headers["content-type"] == [PROBLEM], "a refusal that is no problem document"
    assert response.json()["status"] == response.status_code


@schemathesis.check
def what_fits_the_document_has_the_right_form(
    _ctx: CheckContext, response: Response, case: Case[Any]
) -> None:
    """Rules of a service may refuse what fits its document; its form may not be what is wrong with it."""
    if response.status_code != 422 or case.meta is None or not case.meta.generation.mode.is_positive:
        return
    problem = response.json()
    reasons = {error["reason"] for error in problem.get("errors", [])} - FINER
    assert problem["type"] != "/problems/invalid" or not reasons, f"fits the document, refused: {problem}"
