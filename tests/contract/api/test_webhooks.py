"""Webhooks over HTTP: a job names its address, its owner sees secrets and deliveries and sends again."""

from __future__ import annotations

import json

import pytest

from jobs.services import Services
from jobs.urls import UrlGuard
from jobs.webhooks import WebhookSender
from tests.contract.api.support import Client, Deployment, caption, part, photos, refused
from tests.processes import wait_until

HOOK = "https://hooks.example/captions"


def hooked(client: Client, url: str = HOOK) -> str:
    """Make a job with a webhook; return its id."""
    job = client.job(part("job", json.dumps({"webhook_url": url})), *photos(2))
    assert job["webhook_url"] == url
    return str(job["id"])


def test_every_kind_of_request_takes_an_address(client: Client, services: Services) -> None:
    hooked(client)
    services.store.keys.grant(_owner(client, services), "s3://photos/")
    uri = {"s3_uri": "s3://photos/1.jpg"}
    body = json.dumps({"images": [uri], "webhook_url": HOOK}).encode()
    assert client.post("/v1/jobs", body, "application/json").json["webhook_url"] == HOOK
    line = json.dumps(uri).encode()
    manifest = client.post(f"/v1/jobs?webhook_url={HOOK}", line, "application/x-ndjson")
    assert manifest.json["webhook_url"] == HOOK
    assert client.job(*photos(1))["webhook_url"] is None


def _owner(client: Client, services: Services) -> str:
    caller = services.store.keys.caller(client.key or "")
    assert caller is not None
    return caller.owner


@pytest.mark.parametrize(
    "url", ["ftp://example.com/", "http://127.0.0.1/", "https://me:it@example.com/", "x"]
)
def test_an_address_that_may_not_be_called_is_refused_before_images_come(client: Client, url: str) -> None:
    answer = client.upload(part("job", json.dumps({"webhook_url": url})), *photos(1))
    refused(answer, "invalid_request", "webhook_url: ")


def test_deliveries_show_every_try_and_can_be_sent_again(
    client: Client, deployment: Deployment, services: Services
) -> None:
    sender = WebhookSender(services.store.webhooks, UrlGuard())
    job_id = hooked(client)
    assert client.get("/v1/webhooks/deliveries").json == {"data": [], "next_cursor": None}
    caption(services, job_id)
    (pending,) = client.get(f"/v1/webhooks/deliveries?job_id={job_id}").json["data"]
    assert (pending["type"], pending["status"], pending["attempts"]) == ("job.completed", "pending", [])

    def tried() -> list[dict[str, object]]:
        sender.send_due()
        found: list[dict[str, object]] = client.get("/v1/webhooks/deliveries").json["data"][0]["attempts"]
        return found

    (attempt,) = wait_until(tried, 30, "a try")
    assert attempt["http_status"] is None
    assert "download_failed" in str(attempt["error"])
    again = client.post(f"/v1/webhooks/deliveries/{pending['id']}/retry")
    assert (again.status_code, again.json["status"], again.json["id"]) == (202, "pending", pending["id"])
    stranger = deployment.client()
    refused(stranger.post(f"/v1/webhooks/deliveries/{pending['id']}/retry"), "not_found")
    assert stranger.get("/v1/webhooks/deliveries").json["data"] == []
    sender.stop()


def test_deliveries_come_in_pages(client: Client, services: Services) -> None:
    made = [hooked(client) for _ in range(3)]
    for job_id in made:
        caption(services, job_id)
    first = client.get("/v1/webhooks/deliveries?limit=2&status=pending").json
    second = client.get(f"/v1/webhooks/deliveries?limit=2&cursor={first['next_cursor']}").json
    assert [one["job_id"] for one in first["data"] + second["data"]] == made[::-1]
    assert second["next_cursor"] is None
    refused(client.get("/v1/webhooks/deliveries?cursor=nonsense"), "invalid_request")


def test_secrets_are_the_owners_and_a_replaced_one_goes_in_a_day(
    client: Client, deployment: Deployment
) -> None:
    (first,) = client.get("/v1/webhooks/secrets").json["data"]
    assert first["secret"].startswith("whsec_")
    assert client.get("/v1/webhooks/secrets").json["data"] == [first]
    rotated = client.post("/v1/webhooks/secrets")
    assert rotated.status_code == 201
    new, old = rotated.json["data"]
    assert (old["secret"], new["expires_at"]) == (first["secret"], None)
    assert old["expires_at"] is not None
    assert deployment.client().get("/v1/webhooks/secrets").json["data"][0]["secret"] != first["secret"]
