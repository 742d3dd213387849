"""What a certificate's PDF carries: the certificate itself, and a signature over every byte of the page.

The PDFs that Vitrine makes keep their attachments as they are, uncompressed; the signature stands in the place of as
many blanks, so whoever checks it puts the blanks back. No PDF library is needed for that.
"""

import re

from vitrine import signing
from vitrine.certificate import Altered
from vitrine.signing import Keys, NotSigned

SIGNATURE_BYTES = 400
_KIND = re.compile(rb"/Type /EmbeddedFile\b")
_LENGTH = re.compile(rb"/Length (\d+)\b")


def is_pdf(content: bytes) -> bool:
    """Whether these are the bytes of a PDF."""
    return content.startswith(b"%PDF-")


def certificate_in(content: bytes) -> bytes:
    """The certificate that a PDF carries. Raises Altered."""
    return content[slice(*_places(content)[0])]


def check(content: bytes, keys: Keys) -> None:
    """That the page is, byte for byte, as it was made. Raises Altered."""
    begin, end = _places(content)[1]
    signature = content[begin:end].decode("ascii", "replace").strip()
    try:
        keys.check(signature, typ=signing.PAGE, content=blanked(content))
    except NotSigned as error:
        raise Altered("The PDF was changed after it was made, or another key signed it.") from error


def blanked(content: bytes) -> bytes:
    """The PDF without its signature."""
    begin, end = _places(content)[1]
    return content[:begin] + b" " * (end - begin) + content[end:]


def with_signature(content: bytes, signature: str) -> bytes:
    """A PDF whose signature is still blank, signed."""
    begin, end = _places(content)[1]
    return content[:begin] + signature.encode().ljust(end - begin) + content[end:]


def _places(content: bytes) -> tuple[tuple[int, int], tuple[int, int]]:
    """Where the certificate and the signature are."""
    found: list[tuple[int, int]] = []
    for kind in _KIND.finditer(content):
        begin = content.find(b"stream\n", kind.end()) + len(b"stream\n")
        length = _LENGTH.search(content, content.rfind(b" obj", 0, kind.start()), begin)
        if length is None:
            break
        found.append((begin, begin + int(length.group(1))))
    if len(found) != 2 or found[1][1] - found[1][0] != SIGNATURE_BYTES or found[1][1] > len(content):
        raise Altered("This PDF carries no certificate of Vitrine, or another program has written it anew.")
    return found[0], found[1]
