"""The privacy service's application."""

from fastapi import FastAPI

from libs.common.http import build_app
from services.privacy.api import PAGES, ROUTERS
from services.privacy.settings import Settings


def create_app(settings: Settings) -> FastAPI:
    """Requests, exports, and the data map."""
    app = build_app(
        service="privacy",
        settings=settings,
        title="Vitrine privacy",
        description="The rights of a person, asked for, carried out by every service, and proved.",
        routers=ROUTERS,
    )
    for page in PAGES:
        app.include_router(page, prefix="/privacy")
    return app
