"""Routes of webhooks: the secrets that sign them, and what became of each delivery."""

from __future__ import annotations

from flask import Response
from pydantic import Field

from api.answers import json_answer
from api.cursors import delivery_cursor, read_delivery_cursor
from api.routes import Answer, Call, NoQuery, Route
from jobs.callers import Scope
from jobs.events import Delivery, DeliveryPage, DeliveryStatus, WebhookSecretList
from jobs.records import WITHOUT_NUL, Body

LARGEST_PAGE = 200


class DeliveriesQuery(Body):
    """Which deliveries to list."""

    job_id: str | None = Field(None, max_length=64, pattern=WITHOUT_NUL, description="Only this job's.")
    status: DeliveryStatus | None = None
    limit: int = Field(50, ge=1, le=LARGEST_PAGE)
    cursor: str | None = None


def list_secrets(call: Call[NoQuery]) -> Response:
    """Show the secrets that sign your webhooks; the first call makes one."""
    return json_answer(WebhookSecretList(data=call.services.store.webhooks.secrets(call.owner)))


def rotate_secret(call: Call[NoQuery]) -> Response:
    """Make a new secret; the ones before it sign along for a day."""
    return json_answer(WebhookSecretList(data=call.services.store.webhooks.rotate(call.owner)), 201)


def list_deliveries(call: Call[DeliveriesQuery]) -> Response:
    """List deliveries with every try, newest first."""
    query = call.query
    before = read_delivery_cursor(query.cursor)
    found, after = call.services.store.webhooks.page(
        call.owner, query.job_id, query.status, query.limit, before
    )
    return json_answer(DeliveryPage(data=found, next_cursor=delivery_cursor(after)))


def retry_delivery(call: Call[NoQuery], delivery_id: str) -> Response:
    """Send an event again now, whatever became of it."""
    return json_answer(call.services.store.webhooks.retry(call.owner, delivery_id), 202)


_SECRETS = "All valid secrets, newest first."

WEBHOOK_ROUTES = (
    Route(
        "GET",
        "/v1/webhooks/secrets",
        list_secrets,
        "Show signing secrets",
        (Answer(200, _SECRETS, WebhookSecretList),),
        tag="webhooks",
        scope=Scope.SUBMIT,
    ),
    Route(
        "POST",
        "/v1/webhooks/secrets",
        rotate_secret,
        "Replace the signing secret",
        (Answer(201, _SECRETS, WebhookSecretList),),
        tag="webhooks",
        scope=Scope.SUBMIT,
    ),
    Route(
        "GET",
        "/v1/webhooks/deliveries",
        list_deliveries,
        "List deliveries",
        (Answer(200, "A page of deliveries.", DeliveryPage),),
        DeliveriesQuery,
        tag="webhooks",
        scope=Scope.READ,
    ),
    Route(
        "POST",
        "/v1/webhooks/deliveries/{delivery_id}/retry",
        retry_delivery,
        "Deliver again",
        (Answer(202, "The delivery.", Delivery),),
        refusals=("not_found",),
        tag="webhooks",
        scope=Scope.SUBMIT,
    ),
)
