"""The privacy service over HTTP."""

from services.privacy.api import desk, download_page, downloads, replies, requests, settings

ROUTERS = (requests.router, desk.router, settings.router, replies.router, downloads.router)
PAGES = (download_page.router,)
