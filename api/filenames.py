"""File names as clients send them, turned into plain text that is safe to keep and to show."""

from __future__ import annotations

import re
import unicodedata
from urllib.parse import unquote_to_bytes

from multipart import parse_content_disposition  # type: ignore[import-untyped]

from jobs.records import NAME_LENGTH

# RFC 5987: filename*=UTF-8'en'na%C3%AFve.jpg
_EXTENDED = re.compile(r";\s*filename\*\s*=\s*\"?([\w!#$%&+^`{}~-]+)'[^']*'([^;\s\"]*)", re.IGNORECASE)
# Control characters, line and paragraph separators, and what reverses the reading direction.
_UNSAFE = {"Cc", "Zl", "Zp"}
_DIRECTION = set("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def disposition(header: str) -> tuple[str, str | None, str | None]:
    """Return kind, field name and file name of a Content-Disposition header that was decoded as Latin-1."""
    kind, name, filename = parse_content_disposition(_as_sent(header))
    if extended := _EXTENDED.search(header):
        filename = _decoded(unquote_to_bytes(extended[2]), extended[1])
    return kind, name, filename


def clean_name(filename: str | None, fallback: str) -> str:
    """Return a client's file name without folders, control characters and excess length."""
    last = (filename or "").replace("\\", "/").rpartition("/")[2]
    visible = "".join("_" if _is_unsafe(character) else character for character in last)
    name = visible.strip()[:NAME_LENGTH]
    return fallback if name in ("", ".", "..") else name


def _is_unsafe(character: str) -> bool:
    return unicodedata.category(character) in _UNSAFE or character in _DIRECTION


def _as_sent(header: str) -> str:
    """Read a header as UTF-8 where it is UTF-8; else Latin-1 has read it as well as can be."""
    try:
        return header.encode("latin-1").decode()
    except UnicodeDecodeError:
        return header


def _decoded(raw: bytes, charset: str) -> str:
    try:
        return raw.decode(charset)
    except (LookupError, UnicodeDecodeError):
        return raw.decode("latin-1")
