"""The privacy service over HTTP."""

from services.privacy.api import download_page, downloads, requests

ROUTERS = (requests.router, downloads.router)
PAGES = (download_page.router,)
