"""Keys as administrators see them, and what each scope opens."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from api.app import ROUTES
from api.routes import Route
from jobs.callers import Scope
from tests.contract.api.support import Client, Deployment, document, refused
from tests.processes import wait_until

JSON = "application/json"
KEYS = "/v1/admin/keys"
SECURED = [route for route in ROUTES if not route.keyless]


def send(client: Client, method: str, path: str, **body: Any) -> Any:
    """Send JSON; return the answer."""
    return client.call(method, path, json.dumps(body).encode(), JSON)


def path_of(route: Route) -> str:
    ids = {"job_id": "job_" + "0" * 26, "position": 0, "delivery_id": "x", "key_id": "00000000"}
    return route.path.format(**ids)


@pytest.mark.parametrize("scope", list(Scope))
def test_a_key_opens_what_its_scope_says_and_nothing_else(deployment: Deployment, scope: Scope) -> None:
    client = deployment.client(scopes=[scope])
    for route in SECURED:
        if route.path == "/metrics":
            continue
        answer = client.call(route.method, path_of(route))
        if route.scope in (None, scope):
            assert answer.status_code not in (401, 403), f"{route.method} {route.path}"
        else:
            refused(answer, "forbidden", f"scope {route.scope}")


def test_what_changes_something_needs_more_than_reading() -> None:
    for route in SECURED:
        if route.method != "GET" and route.path != "/v1/session":
            assert route.scope in (Scope.SUBMIT, Scope.ADMIN), f"{route.method} {route.path}"


def test_the_document_says_which_scope_a_call_needs() -> None:
    for route in SECURED:
        operation = document()["paths"][route.path][route.method.lower()]
        assert operation["security"][0] == {"key": [route.scope.value] if route.scope else []}
        assert (f"scope `{route.scope}`" in operation["description"]) is bool(route.scope)


def test_a_key_is_made_listed_limited_replaced_and_revoked(
    admin: Client, deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.auth.REMEMBERED_S", 0.0)
    wanted = {"owner": "zoe", "label": "laptop", "scopes": ["read"], "expires_in_days": 90}
    made = send(admin, "POST", KEYS, **wanted, limits={"images_per_day": 5})
    assert made.status_code == 201
    key: Any = made.json
    assert (key["owner"], key["scopes"], key["limits"]) == ("zoe", ["read"], {"images_per_day": 5})
    left = datetime.fromisoformat(key["expires_at"]) - datetime.now(UTC)
    assert timedelta(days=89) < left < timedelta(days=91)
    zoe = Client(deployment.app, key["key"])
    assert zoe.get("/v1/limits").json["images_per_day"]["limit"] == 5
    [listed] = admin.get(f"{KEYS}?owner=zoe").json["data"]
    assert key["key"] not in json.dumps(listed)
    assert listed["state"] == "valid"
    assert listed["last_used_at"] is not None

    limited = send(admin, "PATCH", f"{KEYS}/{key['id']}/limits", images_per_day=None, concurrent_jobs=2)
    assert limited.json["limits"] == {"images_per_day": None, "concurrent_jobs": 2}
    assert zoe.get("/v1/limits").json["images_per_day"]["limit"] is None

    successor: Any = send(admin, "POST", f"{KEYS}/{key['id']}/rotate", grace_hours=1).json
    assert (successor["owner"], successor["scopes"], successor["label"]) == ("zoe", ["read"], "laptop")
    assert successor["limits"] == limited.json["limits"]
    assert Client(deployment.app, successor["key"]).get("/v1/jobs").status_code == 200
    assert zoe.get("/v1/jobs").status_code == 200
    [old, _] = admin.get(f"{KEYS}?owner=zoe").json["data"]
    assert old["successor"] == successor["id"]
    assert datetime.fromisoformat(old["expires_at"]) < datetime.now(UTC) + timedelta(hours=1, minutes=1)

    for key_id in (key["id"], successor["id"]):
        assert admin.call("DELETE", f"{KEYS}/{key_id}").json["state"] == "revoked"
    refused(zoe.get("/v1/jobs"), "unauthorized", "revoked")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"owner": ""},
        {"owner": " ann"},
        {"owner": "a\nb"},
        {"owner": "a\0b"},
        {"owner": "x" * 65},
        {"owner": "x", "scopes": []},
        {"owner": "x", "scopes": ["root"]},
        {"owner": "x", "expires_in_days": 0},
        {"owner": "x", "limits": {"images": 1}},
        {"owner": "x", "limits": {"requests": "many"}},
        {"owner": "x", "limits": {"images_per_day": -1}},
    ],
)
def test_what_makes_no_key_is_refused(admin: Client, body: dict[str, Any]) -> None:
    refused(send(admin, "POST", KEYS, **body), "invalid_request")


@pytest.mark.parametrize("key_id", ["00000000", "nothere", "%00", "a%00b", "x" * 300])
def test_a_key_that_is_not_there_is_not_found(admin: Client, key_id: str) -> None:
    refused(admin.call("DELETE", f"{KEYS}/{key_id}"), "not_found")
    refused(send(admin, "POST", f"{KEYS}/{key_id}/rotate"), "not_found")
    refused(send(admin, "PATCH", f"{KEYS}/{key_id}/limits"), "not_found")


def test_a_key_is_replaced_once_and_not_after_its_end(admin: Client, deployment: Deployment) -> None:
    keys = deployment.services.store.keys
    made, _ = keys.create("yan")
    assert send(admin, "POST", f"{KEYS}/{made.id}/rotate").status_code == 201
    refused(send(admin, "POST", f"{KEYS}/{made.id}/rotate"), "invalid_request", "already")
    over, _ = keys.create("yan", expires_s=-1)
    refused(send(admin, "POST", f"{KEYS}/{over.id}/rotate"), "invalid_request", "is over")


def test_an_expired_key_opens_nothing(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.auth.REMEMBERED_S", 0.05)
    client = deployment.client(expires_s=3)
    assert client.get("/v1/session").json["expires_at"] is not None
    wait_until(lambda: client.get("/v1/jobs").status_code == 401, what="the key's end")


def test_a_keys_use_is_noted_once_in_a_while(deployment: Deployment) -> None:
    keys = deployment.services.store.keys
    made, key = keys.create("last")
    assert keys.caller(key) is not None
    [first] = [known.last_used_at for known in keys.all("last")]
    assert first is not None
    assert keys.caller(key) is not None
    assert [known.last_used_at for known in keys.all("last")] == [first]
    assert made.last_used_at is None


def test_keys_are_neither_logged_nor_shown(
    deployment: Deployment, admin: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    made: Any = send(admin, "POST", KEYS, owner="quiet").json
    client = Client(deployment.app, made["key"])
    client.get("/v1/jobs")
    client.post("/v1/session", json.dumps({"key": made["key"]}).encode(), JSON)
    refused(
        client.post("/v1/session", json.dumps({"key": made["key"] * 9}).encode(), JSON), "invalid_request"
    )
    client.get(f"/v1/jobs?cursor={made['key']}")
    secret = made["key"].rpartition("_")[2]
    assert secret not in caplog.text
    assert "owner=quiet" in caplog.text
