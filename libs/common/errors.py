"""Every error a caller can meet, as RFC 9457 problems: status and type are stated where the error is declared.

    Problem
    ├── BadRequest 400            the request cannot be understood
    ├── Unauthenticated 401       no valid access token
    ├── Forbidden 403             a valid token without the permission
    ├── NotFound 404              it does not exist, or belongs to another store
    ├── Conflict 409              the state of the object does not allow it
    ├── Gone 410                  it existed and never will again
    ├── PreconditionFailed 412    somebody changed it first
    ├── TooLarge 413              the body exceeds the bound
    ├── Unprocessable 422         a payload that breaks a rule
    ├── PreconditionRequired 428  an If-Match is needed
    ├── TooManyRequests 429       slow down
    └── Unavailable 503           try again; nothing was lost

A service declares its own subclasses in `domain.py`. A detail never repeats what the caller sent.
"""

from collections.abc import Mapping
from typing import ClassVar


class Problem(Exception):
    """A fault of ours. The URI of a problem type is `/problems/{slug}`, stable for ever."""

    status: ClassVar[int] = 500
    slug: ClassVar[str] = "internal-error"
    title: ClassVar[str] = "Something went wrong on our side"
    detail: str | None = None

    def __init__(
        self,
        detail: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        **extensions: object,
    ) -> None:
        super().__init__(self.title)
        self.detail = detail or type(self).detail
        self.headers = dict(headers or {})
        self.extensions = extensions

    def document(self) -> dict[str, object]:
        """The members of RFC 9457, extensions last."""
        body: dict[str, object] = {
            "type": f"/problems/{self.slug}",
            "title": self.title,
            "status": self.status,
        }
        if self.detail:
            body["detail"] = self.detail
        return body | self.extensions


class BadRequest(Problem):
    """400."""

    status = 400
    slug = "bad-request"
    title = "The request cannot be understood"


class Unauthenticated(Problem):
    """401, RFC 6750."""

    status = 401
    slug = "unauthenticated"
    title = "A valid access token is needed"

    def __init__(self, detail: str | None = None, **extensions: object) -> None:
        super().__init__(detail, headers={"WWW-Authenticate": "Bearer"}, **extensions)


class Forbidden(Problem):
    """403."""

    status = 403
    slug = "forbidden"
    title = "Your role does not allow this"


class NotFound(Problem):
    """404, the same whether the object never existed or belongs to another store."""

    status = 404
    slug = "not-found"
    title = "There is nothing here"


class Conflict(Problem):
    """409."""

    status = 409
    slug = "conflict"
    title = "The present state does not allow this"


class Gone(Problem):
    """410."""

    status = 410
    slug = "gone"
    title = "This is gone for good"


class PreconditionFailed(Problem):
    """412, RFC 9110."""

    status = 412
    slug = "stale"
    title = "Somebody changed this since you read it"
    detail = "Read it again and send the new ETag in If-Match."


class TooLarge(Problem):
    """413."""

    status = 413
    slug = "too-large"
    title = "The body is too large"


class Unprocessable(Problem):
    """422: the payload breaks a rule."""

    status = 422
    slug = "invalid"
    title = "The request is not valid"


class PreconditionRequired(Problem):
    """428, RFC 6585."""

    status = 428
    slug = "if-match-required"
    title = "An If-Match header is needed"
    detail = "Read the object first and send its ETag in If-Match, so that no change is overwritten unseen."


class TooManyRequests(Problem):
    """429, RFC 6585. `retry_after` in seconds."""

    status = 429
    slug = "too-many-requests"
    title = "Too many requests"

    def __init__(self, retry_after: int, detail: str | None = None) -> None:
        super().__init__(detail, headers={"Retry-After": str(max(1, retry_after))})


class Unavailable(Problem):
    """503: nothing was changed, and the same request may be sent again."""

    status = 503
    slug = "unavailable"
    title = "This is not possible right now"
    detail = "Nothing was changed. Send the same request again in a few seconds."

    def __init__(self, detail: str | None = None, *, retry_after: int = 2) -> None:
        super().__init__(detail, headers={"Retry-After": str(retry_after)})
