"""The privacy service over HTTP."""

from services.privacy.api import (
    desk,
    documents,
    download_page,
    downloads,
    evidence,
    following,
    opendsr,
    opendsr_controllers,
    operations,
    participants,
    parts,
    people,
    recipients,
    replies,
    request_forms,
    request_pages,
    requests,
    retention,
    settings,
    store_endings,
)

ROUTERS = (
    requests.router,
    request_forms.router,
    desk.router,
    operations.router,
    parts.router,
    participants.router,
    documents.router,
    people.router,
    settings.router,
    retention.router,
    following.router,
    replies.router,
    downloads.router,
    evidence.router,
    store_endings.router,
    recipients.router,
    opendsr_controllers.router,
)
PAGES = (download_page.router, request_pages.router)
OPENDSR = opendsr.router
"""Under the paths of its specification."""
