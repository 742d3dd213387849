"""The privacy service's application."""

from fastapi import FastAPI

from libs.common.http import build_app
from services.privacy.api import PAGES, ROUTERS
from services.privacy.api.uploads import AROUND_A_DOCUMENT
from services.privacy.domain.verification import DOCUMENT_BYTES
from services.privacy.settings import Settings

WITH_DOCUMENTS = ("/status/documents", "/authorised-request-forms")


def create_app(settings: Settings) -> FastAPI:
    """Requests, exports, and the data map."""
    app = build_app(
        service="privacy",
        settings=settings,
        title="Vitrine privacy",
        description="The rights of a person, asked for, carried out by every service, and proved.",
        routers=ROUTERS,
        outlives_stores=True,
        body_limits=dict.fromkeys(WITH_DOCUMENTS, DOCUMENT_BYTES + AROUND_A_DOCUMENT),
    )
    for page in PAGES:
        app.include_router(page, prefix="/privacy")
    return app
