"""Catalog's application."""

from fastapi import FastAPI

from libs.common.http import build_app
from services.catalog import api
from services.catalog.settings import Settings


def create_app(settings: Settings) -> FastAPI:
    """Products and search for everybody; products, stock and files for managers."""
    return build_app(
        service="catalog",
        settings=settings,
        title="Vitrine catalog",
        description="Products, variants, stock and search. Browsing needs no account and stores nothing about people.",
        routers=[api.products.router, api.imports.router],
        body_limits={"/imports": api.imports.MAXIMUM_FILE + api.imports.AROUND_A_FILE},
    )
