"""Who may do what, as clients see it."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, Field

from jobs.callers import Scope
from jobs.records.given import Body


class SignIn(Body):
    """An API key, to begin a browser session."""

    key: str = Field(max_length=256, repr=False)


class Session(BaseModel):
    """Who calls."""

    owner: str
    scopes: list[Scope]
    csrf_token: str | None = Field(
        description="In a session, what calls other than GET send as X-CSRF-Token; else null."
    )
    expires_at: datetime | None = Field(description="When the session, or the key, ends; null: it does not.")
