"""File names as clients send them in multipart headers."""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

from multipart import parse_content_disposition  # type: ignore[import-untyped]

# RFC 5987: filename*=UTF-8'en'na%C3%AFve.jpg
_EXTENDED = re.compile(r";\s*filename\*\s*=\s*\"?([\w!#$%&+^`{}~-]+)'[^']*'([^;\s\"]*)", re.IGNORECASE)


def disposition(header: str) -> tuple[str, str | None, str | None]:
    """Return kind, field name and file name of a Content-Disposition header that was decoded as Latin-1."""
    kind, name, filename = parse_content_disposition(_as_sent(header))
    if extended := _EXTENDED.search(header):
        filename = _decoded(unquote_to_bytes(extended[2]), extended[1])
    return kind, name, filename


def _as_sent(header: str) -> str:
    """Read a header as UTF-8 where it is UTF-8; else Latin-1 has read it as well as can be."""
    try:
        return header.encode("latin-1").decode()
    except UnicodeDecodeError:
        return header


def _decoded(raw: bytes, charset: str) -> str:
    try:
        return raw.decode(charset)
    except (LookupError, UnicodeError):
        return raw.decode("latin-1")
