"""The public keys that access tokens are verified with."""

from fastapi import APIRouter, Response

from services.identity.api.means import ThisParts
from services.identity.schemas import KeySet

router = APIRouter(tags=["keys"])


@router.get("/jwks.json")
async def read_keys(parts: ThisParts, response: Response) -> KeySet:
    """RFC 7517. The next key is published a minute before it signs, so a copy may be half a minute old."""
    response.headers["Cache-Control"] = "public, max-age=30"
    return KeySet(keys=await parts.keys.published())
