"""Downloads: the token of the link that came by mail is changed for an address, from which the archive is fetched."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Cookie, Form, Header, Path, Request, Response
from fastapi.responses import StreamingResponse

from libs.common.http import OpenVault, PlatformSession, refusals
from services.privacy import downloads
from services.privacy.api.means import Now
from services.privacy.evidence.certificates import published_keys
from services.privacy.evidence.placing import key_of, public_key
from services.privacy.schemas import DownloadAddress, KeySet

router = APIRouter(tags=["privacy"])

ZIP = "application/zip"
COOKIE = "download"
"""Holds the secret of one address, for that address alone."""


@router.post("/downloads", status_code=201, responses=refusals(404))
async def open_download(
    request: Request,
    response: Response,
    vault: OpenVault,
    at: Now,
    token: Annotated[str, Form(min_length=1, max_length=100, description="What follows # in the link.")],
) -> DownloadAddress:
    """Change the token of the link that came by mail for an address to fetch the archive from, and its cookie.

    The address works for whoever holds the cookie alone, for a day; to fetch from it is what is counted.
    """
    granted = await downloads.grant(request.app.state.database, vault, token=token, now=at)
    location = f"/privacy/v1/downloads/{granted.id}"
    response.headers["Location"] = location
    response.headers["Cache-Control"] = "no-store"
    response.set_cookie(
        COOKIE,
        granted.secret,
        expires=granted.expires_at,
        path=location,
        secure=request.app.state.settings.public_url.startswith("https:"),
        httponly=True,
        samesite="strict",
    )
    return DownloadAddress(
        location=location,
        size=granted.size,
        sha256=granted.sha256.hex(),
        expires_at=granted.expires_at,
        remaining=granted.remaining,
    )


@router.get(
    "/downloads/{download_id}",
    response_class=StreamingResponse,
    responses={
        200: {"content": {ZIP: {}}, "description": "The archive."},
        206: {"content": {ZIP: {}}, "description": "The part of it that was asked for."},
        **refusals(404, 416),
    },
)
async def download(
    *,
    request: Request,
    download_id: Annotated[UUID, Path(description="From the address.")],
    vault: OpenVault,
    at: Now,
    secret: Annotated[str, Cookie(alias=COOKIE, max_length=100)] = "",
    range_: Annotated[str | None, Header(alias="Range", max_length=200)] = None,
    if_range: Annotated[str | None, Header(alias="If-Range", max_length=200)] = None,
) -> StreamingResponse:
    """Fetch an archive, or the part of it that an interrupted download lacks (RFC 9110, 14), which is not counted."""
    database = request.app.state.database
    fetching = await downloads.begin(
        database, vault, grant_id=download_id, secret=secret, range_=range_, if_range=if_range, now=at
    )
    part = fetching.part
    headers = {
        "Accept-Ranges": "bytes",
        "Cache-Control": "no-store",
        "Content-Disposition": f'attachment; filename="export-{fetching.request_id}.zip"',
        "Content-Length": str(part.size if part else fetching.size),
        "ETag": fetching.etag,
        "X-Content-Type-Options": "nosniff",
    }
    if part is not None:
        headers["Content-Range"] = f"bytes {part.first}-{part.last}/{fetching.size}"
    return StreamingResponse(
        downloads.content(database, vault, fetching),
        status_code=206 if part else 200,
        media_type=ZIP,
        headers=headers,
    )


@router.get("/keys.json")
async def read_keys(request: Request, response: Response, session: PlatformSession) -> KeySet:
    """What certificates, heads of evidence logs, manifests of archives and this service's answers are checked with (RFC
    7517): the key that signs now, then those that signed before.
    """
    present = public_key(key_of(request.app.state.settings))
    earlier = [one for one in await published_keys(session) if one["kid"] != present["kid"]]
    response.headers["Cache-Control"] = "public, max-age=300"
    return KeySet(keys=[present, *reversed(earlier)])
