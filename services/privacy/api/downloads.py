"""Downloads: an export is fetched with the token of the link that came by mail."""

from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import StreamingResponse

from libs.common.http import OpenVault, refusals
from services.privacy import downloads
from services.privacy.api.means import Now
from services.privacy.archive import archive

router = APIRouter(tags=["privacy"])


@router.post(
    "/downloads",
    response_class=StreamingResponse,
    responses={
        200: {"content": {"application/zip": {}}, "description": "The archive, as a stream."},
        **refusals(404),
    },
)
async def download(
    request: Request,
    vault: OpenVault,
    at: Now,
    token: Annotated[str, Form(min_length=1, max_length=100, description="What follows # in the link.")],
) -> StreamingResponse:
    """Fetch an export with the token of the link that came by mail. It works a few times, for a few days."""
    export = await downloads.begin(request.app.state.database, vault, token=token, now=at)
    return StreamingResponse(
        archive(export),
        media_type="application/zip",
        headers={
            "Content-Disposition": f'attachment; filename="export-{export.request_id}.zip"',
            "Cache-Control": "no-store",
        },
    )
