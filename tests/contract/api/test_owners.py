"""Everything belongs to an owner and does not exist for others: every route of the application is tried.

A new route is covered by itself where its path holds ids that this test knows; any other one fails the first
test until it is added below.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from jobs.services import Services
from jobs.store.uploads import split_upload_id
from tests.contract.api.support import (
    MULTIPART,
    Client,
    Deployment,
    caption,
    multipart,
    part,
    photos,
    refused,
    working,
)

JSON = "application/json"
# As they stand in the addresses of routes; each test below makes one of every kind.
IDS = {"job_id", "position", "upload_id", "delivery_id", "key_id"}
NOBODYS = {
    "job_id": "job_" + "0" * 26,
    "position": "0",
    "upload_id": "upload_" + "0" * 26 + "_0",
    "delivery_id": "evt_" + "0" * 26,
    "key_id": "00000000",
}
# Without an owner: the same for everybody, also without a key.
OPEN = {"/", "/healthz", "/readyz", "/docs", "/openapi.json", "/static/{filename}", "/v1/session"}


@dataclass
class Ann:
    """An owner with one of everything, and a client of another owner."""

    mine: Client
    others: Client
    ids: dict[str, str]
    services: Services
    other: str


def routes(app: Flask) -> list[tuple[str, str]]:
    """Every method and path that the application answers; HEAD goes the way of GET."""
    rules = [(rule, re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)) for rule in app.url_map.iter_rules()]
    return sorted(
        (method, path) for rule, path in rules for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    )


@pytest.fixture
def ann(deployment: Deployment) -> Ann:
    mine = deployment.client()
    owner = deployment.owner
    hook = part("job", '{"webhook_url": "https://example.com/hook"}')
    job_id = mine.job(hook, *photos(2))["id"]
    caption(deployment.services, job_id, failing=[1])
    files = json.dumps({"files": [{"name": "a.jpg", "content_type": "image/jpeg", "size": 9}]}).encode()
    uploads: Any = mine.post("/v1/uploads", files, JSON).json
    deliveries: Any = mine.get("/v1/webhooks/deliveries").json
    [key] = deployment.services.store.keys.all(owner)
    ids = {
        "job_id": job_id,
        "position": "0",
        "upload_id": uploads["data"][0]["id"],
        "delivery_id": deliveries["data"][0]["id"],
        "key_id": key.id,
    }
    others = deployment.client()
    return Ann(mine, others, ids, deployment.services, deployment.owner)


def ask(client: Client, method: str, path: str, ids: dict[str, str]) -> TestResponse:
    """Send a request that would be right if the ids were the client's."""
    body = b"" if method in ("GET", "DELETE") else b'{"caption": "somebody else was here"}'
    return client.call(method, path.format(**ids), body, JSON if body else None)


def said(answer: TestResponse, ids: dict[str, str]) -> tuple[int, str]:
    """What an answer says, without the ids that were asked for."""
    text = json.dumps({**json.loads(answer.data), "request_id": ""}) if answer.data else ""
    for value in sorted(ids.values(), key=len, reverse=True):
        text = text.replace(value, "ID") if len(value) > 1 else text
    return answer.status_code, text


def test_no_route_is_left_out(deployment: Deployment) -> None:
    for method, path in routes(deployment.app):
        ids = set(re.findall(r"{(\w+)}", path))
        known = path in OPEN or (ids and ids <= IDS) or (method, path) in WITHOUT_IDS
        assert known, f"{method} {path} is tried by no test of this file: say what others may see of it"


def test_what_belongs_to_somebody_else_is_not_there(ann: Ann, deployment: Deployment) -> None:
    before = snapshot(ann)
    tried = 0
    for method, path in routes(deployment.app):
        if path in OPEN or "{" not in path:
            continue
        answer = ask(ann.others, method, path, ann.ids)
        assert said(answer, ann.ids) == said(ask(ann.others, method, path, NOBODYS), NOBODYS), path
        # Without the scope nobody is told whether a key exists; an upload's address needs its token.
        elsewhere = path.startswith(("/v1/admin/", "/v1/uploads/"))
        assert answer.status_code == (403 if elsewhere else 404), f"{method} {path}: {answer.text}"
        tried += 1
    assert tried > 12
    assert snapshot(ann) == before


def snapshot(ann: Ann) -> list[Any]:
    """All that its owner sees of what others tried to reach."""
    job = f"/v1/jobs/{ann.ids['job_id']}"
    paths = (
        job,
        f"{job}/items",
        f"{job}/results",
        "/v1/jobs",
        "/v1/webhooks/deliveries",
        "/v1/webhooks/secrets",
    )
    return [ann.mine.get(path).data for path in paths]


def test_items_beside_ones_own_are_not_there(ann: Ann) -> None:
    """A position that others have opens nothing in a job that does not."""
    own = ann.others.job(*photos(1))["id"]
    refused(ann.others.get(f"/v1/jobs/{own}/items/1"), "not_found")


def sees_no_jobs(ann: Ann) -> None:
    own = ann.others.job(*photos(1))["id"]
    ann.mine.job(*photos(1))
    page: Any = ann.mine.get("/v1/jobs?limit=1").json
    for query in ("", f"?cursor={page['next_cursor']}", "?status=completed"):
        listed: Any = ann.others.get(f"/v1/jobs{query}").json
        assert {job["id"] for job in listed["data"]} <= {own}


def sees_no_deliveries(ann: Ann) -> None:
    for query in ("", f"?job_id={ann.ids['job_id']}"):
        assert ann.others.get(f"/v1/webhooks/deliveries{query}").json["data"] == []


def has_secrets_of_its_own(ann: Ann) -> None:
    path = "/v1/webhooks/secrets"
    mine, theirs = ann.mine.get(path).json["data"], ann.others.get(path).json["data"]
    assert not {secret["secret"] for secret in mine} & {secret["secret"] for secret in theirs}


def replaces_no_secret(ann: Ann) -> None:
    before = ann.mine.get("/v1/webhooks/secrets").json
    assert ann.others.post("/v1/webhooks/secrets").status_code == 201
    assert ann.mine.get("/v1/webhooks/secrets").json == before


def makes_no_job_of_uploads(ann: Ann) -> None:
    told = []
    for upload in (ann.ids["upload_id"], NOBODYS["upload_id"]):
        body = json.dumps({"images": [{"upload_id": upload}]}).encode()
        told.append(said(ann.others.post("/v1/jobs", body, JSON), {"upload_id": upload}))
    assert told[0] == told[1]
    assert told[0][0] == 400


def has_keys_for_repeating_of_its_own(ann: Ann) -> None:
    made = [client.upload(*photos(1), Idempotency_Key="same").json["id"] for client in (ann.mine, ann.others)]
    assert made[0] != made[1]


def makes_a_job_of_its_own(ann: Ann) -> None:
    makes_no_job_of_uploads(ann)
    has_keys_for_repeating_of_its_own(ann)


def captions_for_itself(ann: Ann) -> None:
    body = multipart(part("image", b"x"))
    with working(ann.services, ann.other):
        answer = ann.others.post("/v1/captions", body, MULTIPART, Idempotency_Key="same")
    assert answer.status_code == 200
    assert ann.ids["job_id"] not in answer.text


def opens_uploads_of_its_own(ann: Ann) -> None:
    files = json.dumps({"files": [{"name": "a.jpg", "content_type": "image/jpeg", "size": 9}]}).encode()
    made: Any = ann.others.post("/v1/uploads", files, JSON).json
    mine, theirs = (split_upload_id(name) for name in (ann.ids["upload_id"], made["data"][0]["id"]))
    assert mine is not None
    assert theirs is not None
    assert mine[0] != theirs[0]


def uses_its_own_quota(ann: Ann) -> None:
    used: Any = ann.others.get("/v1/limits").json
    assert (used["images_per_day"]["used"], used["bytes_per_day"]["used"]) == (0, 0)


def needs_the_scope(ann: Ann) -> None:
    refused(ann.others.get("/v1/admin/keys"), "forbidden", "scope admin")


def makes_no_key(ann: Ann) -> None:
    refused(ann.others.post("/v1/admin/keys", b'{"owner": "eve"}', JSON), "forbidden", "scope admin")


def is_told_nothing_of_owners(ann: Ann) -> None:
    answer = ann.others.get("/v1/models")
    assert all(value not in answer.text for value in ann.ids.values() if len(value) > 1)


def reads_no_metrics(ann: Ann) -> None:
    refused(ann.others.get("/metrics"), "forbidden")


# Routes that act on the caller's own things alone, or on nobody's: what others see of them, and do by them.
WITHOUT_IDS: dict[tuple[str, str], Callable[[Ann], None]] = {
    ("GET", "/v1/jobs"): sees_no_jobs,
    ("POST", "/v1/jobs"): makes_a_job_of_its_own,
    ("POST", "/v1/captions"): captions_for_itself,
    ("POST", "/v1/uploads"): opens_uploads_of_its_own,
    ("GET", "/v1/webhooks/deliveries"): sees_no_deliveries,
    ("GET", "/v1/webhooks/secrets"): has_secrets_of_its_own,
    ("POST", "/v1/webhooks/secrets"): replaces_no_secret,
    ("GET", "/v1/limits"): uses_its_own_quota,
    ("GET", "/v1/admin/keys"): needs_the_scope,
    ("POST", "/v1/admin/keys"): makes_no_key,
    ("GET", "/v1/models"): is_told_nothing_of_owners,
    ("GET", "/metrics"): reads_no_metrics,
}


@pytest.mark.parametrize("check", dict.fromkeys(WITHOUT_IDS.values()), ids=lambda check: check.__name__)
def test_what_is_listed_or_made_is_the_callers_own(ann: Ann, check: Callable[[Ann], None]) -> None:
    check(ann)
