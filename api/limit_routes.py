"""The route that says what a caller may ask for."""

from __future__ import annotations

from flask import Response, g

from api.answers import json_answer
from api.item_routes import result_formats
from api.limiting import Standing
from api.routes import Answer, Call, NoQuery, Route
from jobs.limits import images_per_job, parse_rate
from jobs.records import DailyLimit, JobLimit, LimitList, RequestLimit


def read_limits(call: Call[NoQuery]) -> Response:
    """Say what you may ask for, and how much of it you have used.

    Requests are counted by key, in every answer's RateLimit header too; jobs, images and bytes by owner.
    """
    limits, settings = call.limits, call.services.settings
    usage = call.services.store.usage.of(call.owner)
    ends = usage.resets_at
    return json_answer(
        LimitList(
            requests=_requests(limits.requests),
            concurrent_jobs=JobLimit(limit=limits.concurrent_jobs, used=usage.jobs),
            images_per_day=DailyLimit(limit=limits.images_per_day, used=usage.images, resets_at=ends),
            bytes_per_day=DailyLimit(limit=limits.bytes_per_day, used=usage.bytes, resets_at=ends),
            images_per_job=images_per_job(settings.max_images, limits),
            bytes_per_image=settings.max_image_bytes,
            pixels_per_image=settings.max_image_pixels,
            bytes_per_request=settings.max_upload_bytes,
            result_formats=result_formats(),
        )
    )


def _requests(text: str | None) -> RequestLimit | None:
    if text is None:
        return None
    rate = parse_rate(text)
    standing: Standing | None = g.standing
    return RequestLimit(
        limit=rate.requests,
        window_seconds=rate.seconds,
        remaining=standing.left if standing else None,
        reset_seconds=standing.reset_s if standing else None,
    )


LIMIT_ROUTES = (
    Route(
        "GET",
        "/v1/limits",
        read_limits,
        "What may I ask for?",
        (Answer(200, "Limits, and what of them is used.", LimitList),),
        tag="keys",
        scope=None,
    ),
)
