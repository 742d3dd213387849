"""Routes, by noun."""

from services.identity.api import accounts, emails, keys, pages, sessions, stores

ROUTERS = [accounts.router, emails.router, sessions.router, stores.router, keys.router]
PAGES = pages.router

__all__ = ["PAGES", "ROUTERS"]
