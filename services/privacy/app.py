"""The privacy service's application."""

from fastapi import FastAPI

from libs.common.http import build_app
from services.privacy.api import OPENDSR, PAGES, ROUTERS
from services.privacy.api.uploads import AROUND_A_DOCUMENT
from services.privacy.domain.verification import DOCUMENT_BYTES
from services.privacy.opendsr.wire import BODY_BYTES
from services.privacy.settings import Settings

WITH_DOCUMENTS = ("/status/documents", "/authorised-request-forms")
OF_OPENDSR = ("/v1/requests", "/opengdpr_requests", "/opendsr/callbacks", "/opengdpr_callbacks")


def create_app(settings: Settings) -> FastAPI:
    """Requests, exports, and the data map."""
    app = build_app(
        service="privacy",
        settings=settings,
        title="Vitrine privacy",
        description="The rights of a person, asked for, carried out by every service, and proved.",
        routers=ROUTERS,
        outlives_stores=True,
        body_limits={
            **dict.fromkeys(WITH_DOCUMENTS, DOCUMENT_BYTES + AROUND_A_DOCUMENT),
            **dict.fromkeys(OF_OPENDSR, BODY_BYTES),
        },
    )
    for page in PAGES:
        app.include_router(page, prefix="/privacy")
    app.include_router(OPENDSR, prefix="/privacy/opendsr")
    return app
