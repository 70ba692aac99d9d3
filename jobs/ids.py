"""Identifiers: sortable by time of creation, hard to guess."""

from __future__ import annotations

import secrets
import socket
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def new_id(prefix: str) -> str:
    """Return ``prefix_`` and 26 characters: 48 bits of milliseconds, then 80 random bits (ULID layout)."""
    number = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    digits = [_ALPHABET[number >> shift & 31] for shift in range(125, -1, -5)]
    return f"{prefix}_{''.join(digits)}"


def new_worker_id() -> str:
    """Return the id of one life of one worker: its host's name and 48 random bits."""
    return f"{socket.gethostname()[:40]}-{secrets.token_hex(6)}"
