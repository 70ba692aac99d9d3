"""Routes of administrators: make, list, limit, rotate and revoke the keys of every owner."""

from __future__ import annotations

from dataclasses import fields

from flask import Response
from pydantic import Field

from api.answers import json_answer
from api.routes import Answer, Call, Media, NoQuery, Route
from jobs.callers import Scope, in_order
from jobs.records import Body, Key, KeyLimits, KeyList, KeyRequest, NewKey, Owner, Rotation
from jobs.store.keys import ApiKey

KEY_BYTES = 16 * 1024
DAY_S = 86400.0


class KeysQuery(Body):
    """Which keys to list."""

    owner: Owner | None = Field(None, description="Only this owner's.")


def create_key(call: Call[NoQuery]) -> Response:
    """Make a key; this answer is the only one that shows it."""
    wanted = call.json(KeyRequest, KEY_BYTES)
    days = wanted.expires_in_days
    made = call.services.store.keys.create(
        wanted.owner,
        wanted.label,
        scopes=wanted.scopes,
        expires_s=None if days is None else days * DAY_S,
        limits=wanted.limits.given(),
    )
    return json_answer(_new(*made), 201)


def list_keys(call: Call[KeysQuery]) -> Response:
    """List keys, those too that are over."""
    keys = call.services.store.keys.all(call.query.owner)
    return json_answer(KeyList(data=[Key(**_fields(key)) for key in keys]))


def rotate_key(call: Call[NoQuery], key_id: str) -> Response:
    """Make a key in the place of one, which goes on for a while."""
    wanted = call.json(Rotation, KEY_BYTES)
    made = call.services.store.keys.rotate(key_id, wanted.grace_hours * 3600)
    return json_answer(_new(*made), 201)


def limit_key(call: Call[NoQuery], key_id: str) -> Response:
    """Change limits of a key; processes that know it follow within seconds."""
    wanted = call.json(KeyLimits, KEY_BYTES)
    return json_answer(Key(**_fields(call.services.store.keys.set_limits(key_id, wanted.given()))))


def revoke_key(call: Call[NoQuery], key_id: str) -> Response:
    """Refuse a key, and browser sessions it began, within seconds and for good."""
    return json_answer(Key(**_fields(call.services.store.keys.revoke(key_id))))


def _fields(key: ApiKey) -> dict[str, object]:
    values = {field.name: getattr(key, field.name) for field in fields(key)}
    return values | {"state": key.state, "scopes": in_order(key.scopes)}


def _new(made: ApiKey, key: str) -> NewKey:
    return NewKey(**_fields(made), key=key)


_BODY = ("invalid_request", "unsupported_media_type", "upload_too_large", "upload_incomplete")
_ONE = ("not_found",)

KEY_ROUTES = (
    Route(
        "POST",
        "/v1/admin/keys",
        create_key,
        "Make a key",
        (Answer(201, "The key, shown this once.", NewKey),),
        takes=(Media("application/json", KeyRequest),),
        refusals=_BODY,
        tag="keys",
        scope=Scope.ADMIN,
    ),
    Route(
        "GET",
        "/v1/admin/keys",
        list_keys,
        "List keys",
        (Answer(200, "All keys.", KeyList),),
        KeysQuery,
        tag="keys",
        scope=Scope.ADMIN,
    ),
    Route(
        "PATCH",
        "/v1/admin/keys/{key_id}/limits",
        limit_key,
        "Limit a key",
        (Answer(200, "The key.", Key),),
        takes=(Media("application/json", KeyLimits),),
        refusals=(*_BODY, *_ONE),
        tag="keys",
        scope=Scope.ADMIN,
    ),
    Route(
        "POST",
        "/v1/admin/keys/{key_id}/rotate",
        rotate_key,
        "Replace a key",
        (Answer(201, "The new key, shown this once.", NewKey),),
        takes=(Media("application/json", Rotation),),
        refusals=(*_BODY, *_ONE),
        tag="keys",
        scope=Scope.ADMIN,
    ),
    Route(
        "DELETE",
        "/v1/admin/keys/{key_id}",
        revoke_key,
        "Revoke a key",
        (Answer(200, "The key as it was.", Key),),
        refusals=_ONE,
        tag="keys",
        scope=Scope.ADMIN,
    ),
)
