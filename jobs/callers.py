"""Who calls: an owner, by which key, and what that key allows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from jobs.errors import RequestError

LOCAL_OWNER = "local"


class Scope(StrEnum):
    """What a key allows; none includes another."""

    SUBMIT = "submit"
    """Make jobs and change them: upload, retry, cancel, delete, edit captions."""
    READ = "read"
    """Read jobs, images and results."""
    ADMIN = "admin"
    """Make, list, rotate and revoke keys, of every owner."""


class KeyState(StrEnum):
    """Whether a key opens the API."""

    VALID = "valid"
    EXPIRED = "expired"
    REVOKED = "revoked"


USUAL_SCOPES = (Scope.SUBMIT, Scope.READ)


@dataclass(frozen=True)
class Caller:
    """The owner a call is made for, and what the call may do."""

    owner: str
    scopes: frozenset[Scope]
    key_id: str | None = None
    expires_at: datetime | None = None
    # What differs from the settings' limits.
    limits: Mapping[str, Any] = field(default_factory=dict)

    def check(self, scope: Scope | None) -> None:
        """Raise ``RequestError`` forbidden where a call needs a scope that the key lacks."""
        if scope is not None and scope not in self.scopes:
            has = scope_text(self.scopes)
            raise RequestError(
                "forbidden", f"this call needs a key with the scope {scope}; this one has {has}"
            )


NOBODY = Caller("", frozenset())
"""Who calls what is open to all."""
LOCAL_CALLER = Caller(LOCAL_OWNER, frozenset(Scope))
"""The one caller of a server that asks for no keys."""


def in_order(scopes: Iterable[Scope]) -> list[Scope]:
    """Return scopes as they are shown: each once, in the order of their declaration."""
    given = frozenset(scopes)
    return [scope for scope in Scope if scope in given]


def scope_text(scopes: Iterable[Scope]) -> str:
    """Return scopes as they are kept: in order, separated by spaces."""
    return " ".join(in_order(scopes))


def read_scopes(text: str) -> frozenset[Scope]:
    """Return the scopes of a text."""
    return frozenset(Scope(name) for name in text.split())
