"""Routes of the service itself: models, health, documentation, the page."""

from __future__ import annotations

from collections import defaultdict
from http import HTTPStatus

from flask import Response, render_template, request

from api.answers import json_answer
from api.headers import page_policy
from api.routes import Answer, Call, NoQuery, Route
from jobs.errors import RequestError
from jobs.records import Health, ModelInfo, ModelList
from jobs.store.workers import Worker


def list_models(call: Call[NoQuery]) -> Response:
    """List the models that requests may name, with the workers that serve them now."""
    by_model: defaultdict[str, list[Worker]] = defaultdict(list)
    for worker in call.services.store.workers.alive():
        by_model[worker.model].append(worker)
    names = call.services.settings.model_names
    return json_answer(ModelList(data=[_model(name, by_model[name], name == names[0]) for name in names]))


def _model(name: str, workers: list[Worker], default: bool) -> ModelInfo:
    rates = [worker.images_per_second for worker in workers if worker.images_per_second is not None]
    return ModelInfo(
        name=name,
        default=default,
        versions=sorted({worker.version for worker in workers}),
        devices=sorted({worker.device for worker in workers}),
        workers=len(workers),
        images_per_second=round(sum(rates), 2) if rates else None,
        takes_prompt=any(worker.takes_prompt for worker in workers) if workers else None,
    )


def read_health(_call: Call[NoQuery]) -> Response:
    """Tell that this process answers."""
    return json_answer(Health(status="ok"))


def read_readiness(call: Call[NoQuery]) -> Response:
    """Tell whether everything this process depends on answers."""
    health = call.context.readiness.check()
    ready = health.status == "ok"
    return json_answer(health, HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE)


def read_metrics(call: Call[NoQuery]) -> Response:
    """Show Prometheus what was counted; where there are API keys, that is no business of their owners."""
    settings = call.services.settings
    if settings.keys_required:
        message = "metrics are shown on CAPTIONFLEET_METRICS_PORT, inside the operator's network"
        raise RequestError("forbidden", message)
    body, content_type = call.context.exposition.render(request.headers.get("Accept", ""))
    return Response(body, content_type=content_type)


def read_page(call: Call[NoQuery]) -> Response:
    """Show the web page."""
    response = Response(render_template("page.html"), content_type="text/html; charset=utf-8")
    response.headers["Content-Security-Policy"] = page_policy(call.services)
    response.headers["Cache-Control"] = "no-cache"
    return response


_HTML = ("text/html; charset=utf-8",)

SYSTEM_ROUTES = (
    Route(
        "GET",
        "/v1/models",
        list_models,
        "List models",
        (Answer(200, "All models.", ModelList),),
        tag="service",
        scope=None,
    ),
    Route(
        "GET",
        "/healthz",
        read_health,
        "Is the process alive?",
        (Answer(200, "Yes.", Health),),
        keyless=True,
        tag="service",
        scope=None,
    ),
    Route(
        "GET",
        "/readyz",
        read_readiness,
        "Can the process serve?",
        (Answer(200, "Yes.", Health), Answer(503, "No, and why.", Health)),
        keyless=True,
        tag="service",
        scope=None,
    ),
    Route(
        "GET",
        "/metrics",
        read_metrics,
        "Metrics for Prometheus (where no keys are needed)",
        (Answer(200, "All metrics.", media_types=("text/plain",)),),
        refusals=("forbidden",),
        tag="service",
        scope=None,
    ),
    Route(
        "GET",
        "/",
        read_page,
        "The web page",
        (Answer(200, "The page.", media_types=_HTML),),
        keyless=True,
        tag="service",
        scope=None,
    ),
)
