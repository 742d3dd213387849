"""A certificate as a page to read and to keep: PDF/A-3 (ISO 19005-3), with the certificate in it, signed as a whole."""

import asyncio
from collections.abc import Mapping
from typing import Any

from joserfc.jwk import ECKey


async def made(document: Mapping[str, Any], *, language: str, url: str, key: ECKey) -> bytes:
    """The page. `url` is where the public key can be found. It takes some tens of milliseconds, in a thread."""
    return await asyncio.to_thread(_made, document, language, url, key)


def _made(document: Mapping[str, Any], language: str, url: str, key: ECKey) -> bytes:
    # Loading what draws takes most of a second, which only whoever asks for the first page waits for.
    from services.privacy.evidence.drawing import drawn

    return drawn(document, language, url, key)
