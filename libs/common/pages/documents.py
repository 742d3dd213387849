"""The page of a service's OpenAPI document: Swagger UI, which the service serves itself and needs no other host for."""

from functools import partial
from importlib.util import find_spec
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse, HTMLResponse

from libs.common.pages import page, templates

# Only the files of the package are used: its own page is written for a policy that lets every script run.
_FILES = Path(str(getattr(find_spec("fastapi_swagger"), "origin", None))).parent / "resources"
FILES = ("swagger-ui.css", "swagger-ui-bundle.js", "favicon-32x32.png")


def documents(service: str, title: str) -> APIRouter:
    """`docs` and what it loads, below the service's first path segment."""
    router = APIRouter(include_in_schema=False)
    pages = templates()

    @router.get("/docs", name=f"{service}_docs")
    async def docs() -> HTMLResponse:  # pyright: ignore[reportUnusedFunction]
        return page(pages, "documents.html", allowed=["img-src 'self' data:"], title=title)

    for file in FILES:
        router.add_api_route(f"/docs/{file}", partial(_send, file), name=f"{service}_docs_{file}")
    return router


async def _send(file: str) -> FileResponse:
    return FileResponse(_FILES / file, headers={"Cache-Control": "public, max-age=3600"})
