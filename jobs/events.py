"""Webhooks as clients see them: the events of a job's end, their delivery, and the secrets that sign."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, Field


class DeliveryStatus(StrEnum):
    """Where the delivery of an event is."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


class DeliveryAttempt(BaseModel):
    """One try at a delivery."""

    at: datetime
    seconds: float
    http_status: int | None = Field(description="What the receiver answered, if it answered.")
    error: str | None = Field(description="Why the try failed.")


class Delivery(BaseModel):
    """One event of one job on its way to the job's webhook."""

    id: str = Field(description="The webhook-id: the same in every try.")
    object: Literal["delivery"] = "delivery"
    job_id: str
    type: str = Field(description="job.completed, job.failed or job.canceled.")
    url: str
    status: DeliveryStatus
    created_at: datetime
    next_attempt_at: datetime | None
    attempts: list[DeliveryAttempt]


class DeliveryPage(BaseModel):
    """A page of deliveries, newest first."""

    data: list[Delivery]
    next_cursor: str | None


class WebhookSecret(BaseModel):
    """A secret that signs an owner's events."""

    secret: str = Field(description="whsec_ and the key in base64.")
    created_at: datetime
    expires_at: datetime | None = Field(description="Until when a replaced secret still signs.")


class WebhookSecretList(BaseModel):
    """All valid secrets, newest first: every event is signed with each."""

    data: list[WebhookSecret]
