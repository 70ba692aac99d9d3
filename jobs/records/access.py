"""Who may do what, as clients see it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, Field, StringConstraints

from jobs.callers import USUAL_SCOPES, KeyState, Scope
from jobs.limits import RATE_PATTERN
from jobs.records.given import Body
from jobs.records.values import WITHOUT_NUL

LARGEST = 2**62
OWNER_PATTERN = r"^[^\s\x00-\x1f\x7f]([^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f])?$"
Owner = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=OWNER_PATTERN)]


class KeyLimits(Body):
    """Limits of a key that are not the settings'; null lifts one, what is left out stays."""

    requests: str | None = Field(
        None, pattern=RATE_PATTERN, description="Such as 50/second or 1000/10seconds, by key."
    )
    concurrent_jobs: int | None = Field(None, ge=1, description="Jobs of the owner that have not ended.")
    images_per_day: int | None = Field(None, ge=0, le=LARGEST, description="By owner.")
    bytes_per_day: int | None = Field(None, ge=0, le=LARGEST, description="By owner.")
    images_per_job: int | None = Field(None, ge=1, description="No more than the settings allow.")

    def given(self) -> dict[str, Any]:
        """Return what was said, by name."""
        return self.model_dump(exclude_unset=True)


class KeyRequest(Body):
    """A key to be made."""

    owner: Owner = Field(description="Who calls with it; jobs belong to owners.")
    label: str = Field("", max_length=200, pattern=WITHOUT_NUL, description="A note for people.")
    scopes: list[Scope] = Field(default_factory=lambda: list(USUAL_SCOPES), min_length=1)
    expires_in_days: float | None = Field(None, gt=0, le=36500, description="Null: it does not expire.")
    limits: KeyLimits = KeyLimits()


class Rotation(Body):
    """How to replace a key."""

    grace_hours: float = Field(24, ge=0, le=24 * 366, description="How long the old one goes on.")


class Key(BaseModel):
    """What is known of a key."""

    id: str
    owner: str
    label: str
    scopes: list[Scope]
    state: KeyState
    # Generators name its type Key + title, and KeyLimits is another.
    limits: dict[str, int | str | None] = Field(
        title="Own limits", description="Those that are not the settings'."
    )
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None = Field(description="To the minute.")
    successor: str | None = Field(description="The key that has taken its place.")


class NewKey(Key):
    """A key that was just made; nobody can show it again."""

    key: str


class KeyList(BaseModel):
    """Keys, oldest first."""

    data: list[Key]


class RequestLimit(BaseModel):
    """Requests of one key in a window of time."""

    limit: int
    window_seconds: int
    remaining: int | None = Field(description="In this window; null while they are not counted.")
    reset_seconds: int | None = Field(description="Until the next window begins.")


class JobLimit(BaseModel):
    """Jobs of one owner that have not ended."""

    limit: int | None
    used: int


class DailyLimit(BaseModel):
    """What one owner may use up from midnight to midnight, UTC."""

    limit: int | None
    used: int
    resets_at: datetime


class LimitList(BaseModel):
    """What the caller may ask for, and how much of it is used; a null limit: as much as wanted."""

    requests: RequestLimit | None
    concurrent_jobs: JobLimit
    images_per_day: DailyLimit
    bytes_per_day: DailyLimit = Field(
        description="Bytes that requests which make jobs send, and sizes that POST /v1/uploads announces."
    )
    images_per_job: int
    bytes_per_image: int
    pixels_per_image: int
    bytes_per_request: int
    result_formats: list[str] = Field(description="What results can be downloaded as, and written to S3 as.")


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
