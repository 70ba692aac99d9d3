"""Browser sessions: a cookie instead of a key, what must come with it, and when it ends."""

from __future__ import annotations

import json
from typing import Any

import pytest
from werkzeug.test import TestResponse

from api.app import create_app
from api.auth import SESSION_COOKIE
from jobs.services import Services
from tests.contract.api.support import MULTIPART, Client, Deployment, multipart, photos, refused
from tests.processes import wait_until

JSON = "application/json"


def sign_in(client: Client, **headers: str) -> TestResponse:
    """Begin a session; from then on the client shows its cookie and no key."""
    body = json.dumps({"key": client.key}).encode()
    client.key = None
    return client.post("/v1/session", body, JSON, **headers)


def set_cookie(answer: TestResponse) -> set[str]:
    [line] = answer.headers.getlist("Set-Cookie")
    return set(line.split("; "))


def test_a_key_begins_a_session_that_does_what_the_key_does(deployment: Deployment) -> None:
    client = deployment.client()
    answer = sign_in(client)
    session: Any = answer.json
    assert (session["owner"], session["scopes"]) == (deployment.owner, ["submit", "read"])
    assert client.get("/v1/session").json == session
    made = client.upload(*photos(1), X_CSRF_Token=session["csrf_token"])
    assert made.status_code == 202
    assert client.get(f"/v1/jobs/{made.json['id']}").status_code == 200


def test_no_script_can_read_the_cookie_and_no_other_site_sends_it(deployment: Deployment) -> None:
    plain = set_cookie(sign_in(deployment.client()))
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} < plain
    assert "Secure" not in plain
    assert not any(part.startswith("Domain") for part in plain)
    assert "Secure" in set_cookie(sign_in(deployment.client(), X_Forwarded_Proto="https"))


@pytest.mark.parametrize("shown", [{}, {"X_CSRF_Token": ""}, {"X_CSRF_Token": "0" * 64}])
def test_in_a_session_what_changes_something_shows_the_token(
    deployment: Deployment, shown: dict[str, str]
) -> None:
    client = deployment.client()
    sign_in(client)
    refused(client.upload(*photos(1), **shown), "unauthorized", "X-CSRF-Token")
    refused(client.call("DELETE", "/v1/session", **shown), "unauthorized", "X-CSRF-Token")
    assert client.get("/v1/jobs").json["data"] == []


def test_another_sessions_token_is_none(deployment: Deployment) -> None:
    first, second = deployment.client("bea"), deployment.client("bea")
    sign_in(first)
    token: Any = sign_in(second).json
    refused(first.upload(*photos(1), X_CSRF_Token=token["csrf_token"]), "unauthorized")


@pytest.mark.parametrize(
    "sent",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ],
)
def test_in_a_session_pages_of_other_sites_are_refused(deployment: Deployment, sent: dict[str, str]) -> None:
    client = deployment.client()
    token: Any = sign_in(client).json
    refused(client.get("/v1/jobs", **sent), "forbidden")
    body = multipart(*photos(1))
    headers = {"X_CSRF_Token": token["csrf_token"], **sent}
    refused(client.post("/v1/jobs", body, MULTIPART, **headers), "forbidden")
    # Nor may they sign a visitor in as somebody else.
    refused(sign_in(deployment.client(), **sent), "forbidden")


def test_the_own_page_is_served(deployment: Deployment) -> None:
    client = deployment.client()
    own = {"Origin": "http://localhost", "Sec_Fetch_Site": "same-origin"}
    token: Any = sign_in(client, **own).json
    assert client.upload(*photos(1), X_CSRF_Token=token["csrf_token"], **own).status_code == 202
    # Behind a proxy that names itself as Host, the browser still knows whose page it is.
    answer = sign_in(deployment.client(), Origin="https://captions.example", Sec_Fetch_Site="same-origin")
    assert answer.status_code == 200


def test_signing_out_ends_it(deployment: Deployment) -> None:
    client = deployment.client()
    token: Any = sign_in(client).json
    kept = client.http.get_cookie(SESSION_COOKIE)
    assert kept is not None
    answer = client.call("DELETE", "/v1/session", X_CSRF_Token=token["csrf_token"])
    assert answer.status_code == 204
    assert client.http.get_cookie(SESSION_COOKIE) is None
    refused(client.get("/v1/session"), "unauthorized")
    client.http.set_cookie(SESSION_COOKIE, kept.value)
    refused(client.get("/v1/session"), "unauthorized", "has ended")


def test_it_ends_with_its_key(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.auth.REMEMBERED_S", 0.1)
    client = deployment.client()
    sign_in(client)
    keys = deployment.services.store.keys
    [made] = keys.all(deployment.owner)
    keys.revoke(made.id)
    wait_until(lambda: client.get("/v1/session").status_code == 401, what="the session's end")


def test_it_ends_by_itself_and_its_row_goes(deployment: Deployment) -> None:
    store = deployment.services.store
    deployment.client()
    [made] = store.keys.all(deployment.owner)
    over, _ = store.sessions.create(made.id, -1)
    valid, _ = store.sessions.create(made.id, 60)
    assert store.sessions.caller(over) is None
    with store.database.read() as connection:
        before = connection.exec_driver_sql("select count(*) from sessions").scalar_one()
    store.sessions.forget_old()
    with store.database.read() as connection:
        assert connection.exec_driver_sql("select count(*) from sessions").scalar_one() < before
    assert store.sessions.caller(valid) is not None


@pytest.mark.parametrize("body", [b"", b"{}", b'{"key": 1}', b'{"key": "x", "y": 1}', b"[]"])
def test_a_body_without_a_key_is_refused(client: Client, body: bytes) -> None:
    refused(client.post("/v1/session", body, JSON), "invalid_request")


def test_a_wrong_key_begins_nothing(client: Client) -> None:
    answer = client.post("/v1/session", b'{"key": "cf_live_00000000_x"}', JSON)
    refused(answer, "unauthorized")
    assert "Set-Cookie" not in answer.headers
    refused(
        client.post("/v1/session", b"key=x", "application/x-www-form-urlencoded"), "unsupported_media_type"
    )


def test_a_key_says_who_it_is_for_without_a_session(deployment: Deployment) -> None:
    client = deployment.client()
    session: Any = client.get("/v1/session").json
    assert session == {
        "owner": deployment.owner,
        "scopes": ["submit", "read"],
        "csrf_token": None,
        "expires_at": None,
    }
    assert client.call("DELETE", "/v1/session").status_code == 204


def test_without_keys_everybody_is_the_local_owner(embedded: Services) -> None:
    client = Client(create_app(embedded), None)
    local: Any = client.get("/v1/session").json
    assert (local["owner"], local["csrf_token"]) == ("local", None)
    assert set(local["scopes"]) == {"submit", "read", "admin"}
    answer = client.post("/v1/session", b'{"key": "any"}', JSON)
    assert answer.json == local
    assert "Set-Cookie" not in answer.headers
