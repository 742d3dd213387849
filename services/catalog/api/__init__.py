"""Catalog's routes."""

from services.catalog.api import imports, products

__all__ = ["imports", "products"]
