"""The privacy service's application."""

from fastapi import FastAPI

from libs.common.http import build_app
from services.privacy import api, download_page
from services.privacy.settings import Settings


def create_app(settings: Settings) -> FastAPI:
    """Requests, exports, and the data map."""
    app = build_app(
        service="privacy",
        settings=settings,
        title="Vitrine privacy",
        description="The rights of a person, asked for, carried out by every service, and proved.",
        routers=[api.router],
    )
    app.include_router(download_page.router, prefix="/privacy")
    return app
