"""What a route is: one declaration that the application serves, checks and documents."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from flask import Flask, Response, g, request
from pydantic import BaseModel, ConfigDict, ValidationError
from werkzeug.datastructures import MultiDict

from api.auth import authenticate
from api.body import RequestBody
from api.context import Context, current_context
from api.limiting import check_rate
from jobs.callers import NOBODY, Caller, Scope
from jobs.errors import RequestError
from jobs.limits import Limits
from jobs.logs import note_ids
from jobs.records import LARGEST_POSITION
from jobs.services import Services
from jobs.validation import invalid

Q = TypeVar("Q", bound=BaseModel)
B = TypeVar("B", bound=BaseModel)

JSON = "application/json"

_JOB_ID = re.compile(r"job_[0-9a-z]{26}")
# A file, in the words of OpenAPI 3.1; `format` is what generators of clients still go by.
FILE: dict[str, Any] = {
    "type": "string",
    "format": "binary",
    "contentMediaType": "application/octet-stream",
}


class NoQuery(BaseModel):
    """A route without query parameters."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class Call(Generic[Q]):
    """One request to a route: who calls, with which query and body."""

    context: Context
    caller: Caller
    limits: Limits
    query: Q
    body: RequestBody

    @property
    def services(self) -> Services:
        """The process's services."""
        return self.context.services

    @property
    def owner(self) -> str:
        """Whose jobs the call is about."""
        return self.caller.owner

    def json(self, model: type[B], limit: int, subject: str = "the body") -> B:
        """Return what a small JSON body says; raise ``RequestError`` where it is none, too large or wrong."""
        if request.mimetype != JSON:
            raise RequestError("unsupported_media_type", f"{subject} comes as {JSON}")
        try:
            return model.model_validate_json(self.body.read_all(limit, subject))
        except ValidationError as error:
            raise invalid(error, subject) from error


@dataclass(frozen=True)
class Answer:
    """One way a route answers, for the document."""

    status: int
    description: str
    body: type[BaseModel] | None = None
    media_types: tuple[str, ...] = (JSON,)
    headers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Media:
    """One kind of body a route takes, for the document: a type, or a schema where no type says it."""

    media_type: str
    body: type[BaseModel] | None = None
    schema: dict[str, Any] | None = None
    parts: tuple[type[BaseModel], ...] = ()


@dataclass(frozen=True)
class Route:
    """One method on one path; ``handler(call, **path parameters)`` answers it."""

    method: str
    path: str
    handler: Callable[..., Response]
    summary: str
    answers: tuple[Answer, ...]
    # What the caller's key must allow; None: any key will do.
    scope: Scope | None = field(kw_only=True)
    query: type[BaseModel] = NoQuery
    takes: tuple[Media, ...] = ()
    headers: tuple[str, ...] = ()
    refusals: tuple[str, ...] = ()
    keyless: bool = False
    tag: str = "jobs"

    @property
    def name(self) -> str:
        """The operation's name."""
        return self.handler.__name__


def register_routes(app: Flask, routes: tuple[Route, ...]) -> None:
    """Serve routes; what they do not take is refused before their handlers run."""
    for route in routes:
        rule = route.path.replace("{position}", "<int:position>").replace("{", "<").replace("}", ">")
        app.add_url_rule(
            rule, route.name, _view(route), methods=[route.method], provide_automatic_options=False
        )


def _view(route: Route) -> Callable[..., Response]:
    def view(**path: Any) -> Response:
        context = current_context()
        settings = context.services.settings
        caller = NOBODY if route.keyless else authenticate(settings, context.doors, request)
        g.owner = caller.owner
        limits = context.limits.changed(caller.limits)
        if not route.keyless:
            check_rate(context.limiter, caller, limits)
        caller.check(route.scope)
        _check_path(path)
        if "job_id" in path:
            note_ids(job=path["job_id"])
        call = Call(context, caller, limits, _query(route.query, request.args), request_body())
        return route.handler(call, **path)

    return view


def request_body() -> RequestBody:
    """Return the body of the present request; the same object, however often it is asked for."""
    if "body" not in g:
        limit = current_context().services.settings.max_upload_bytes
        g.body = RequestBody(request.environ, limit)
    body = g.body
    assert isinstance(body, RequestBody)
    return body


def _check_path(path: dict[str, Any]) -> None:
    """Answer ids that no job can have like those of jobs that are not there."""
    job_id = path.get("job_id")
    if job_id is not None and not _JOB_ID.fullmatch(job_id):
        raise RequestError("job_not_found", f"there is no job {job_id}")
    if any("\0" in value for value in path.values() if isinstance(value, str)):
        raise RequestError("not_found", "there is nothing at this address")
    if path.get("position", 0) > LARGEST_POSITION:
        raise RequestError("not_found", f"the job has no item at position {path['position']}")


def _query(model: type[Q], given: MultiDict[str, str]) -> Q:
    """Return the query parameters; raise ``RequestError`` invalid_request for unknown or wrong ones."""
    for name, values in given.lists():
        if name not in model.model_fields:
            known = ", ".join(model.model_fields) or "none here"
            message = f"unknown query parameter {name!r}; there are: {known}"
            raise RequestError("invalid_request", message)
        if len(values) > 1:
            raise RequestError("invalid_request", f"the query parameter {name!r} is given more than once")
    try:
        return model.model_validate(given.to_dict())
    except ValidationError as error:
        raise invalid(error, "query parameter") from error
