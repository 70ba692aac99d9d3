"""Names that clients and archives give, turned into plain text that is safe to keep and to show."""

from __future__ import annotations

import unicodedata

from jobs.records import NAME_LENGTH

# Control characters, line and paragraph separators, and what reverses the reading direction.
_UNSAFE = {"Cc", "Cs", "Zl", "Zp"}
_DIRECTION = set("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def clean_name(filename: str | None, fallback: str) -> str:
    """Return a client's file name without folders, control characters and excess length."""
    last = (filename or "").replace("\\", "/").rpartition("/")[2]
    name = _visible(last)[:NAME_LENGTH]
    return fallback if name in ("", ".", "..") else name


def clean_path(path: str) -> str:
    """Return an archive member's path without a root, ways up, control characters and excess length.

    Whoever writes files by these names stays inside the folder they write to. May be empty.
    """
    parts = (_visible(part) for part in path.replace("\\", "/").split("/"))
    kept = [part for part in parts if part not in ("", ".", "..")]
    if kept and len(kept[0]) == 2 and kept[0][1] == ":":
        kept = kept[1:]  # A Windows drive.
    return "/".join(kept)[-NAME_LENGTH:].lstrip("/")


def _visible(text: str) -> str:
    if text.isprintable():
        # No character of these kinds is; nearly every name is, and this is 30 times as fast.
        return text.strip()
    return "".join("_" if _is_unsafe(character) else character for character in text).strip()


def _is_unsafe(character: str) -> bool:
    return unicodedata.category(character) in _UNSAFE or character in _DIRECTION
