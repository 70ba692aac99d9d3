"""Limits and quotas: what is refused, what answers say of it, and what counts."""

from __future__ import annotations

import io
import json
import re
import threading
import zipfile
from collections.abc import Mapping
from datetime import date
from typing import Any

import pytest
from sqlalchemy import update

from jobs.limits import parse_rate
from jobs.tables import UsageRow
from tests.contract.api.support import Client, Deployment, caption, part, photos, refused
from tests.pictures import jpeg_bytes
from tests.processes import wait_until

JSON = "application/json"
LONG = "1000/day"


def limited(deployment: Deployment, **limits: Any) -> Client:
    """A client of a new owner whose key has these limits."""
    return deployment.client(limits=limits)


def used(client: Client) -> tuple[int, int, int]:
    """Jobs, images and bytes that count against a client's quotas."""
    limits: Any = client.get("/v1/limits").json
    return tuple(limits[name]["used"] for name in ("concurrent_jobs", "images_per_day", "bytes_per_day"))


def _zip(count: int) -> bytes:
    """An archive of that many photos."""
    with io.BytesIO() as file:
        with zipfile.ZipFile(file, "w") as archive:
            for number in range(count):
                archive.writestr(f"{number}.jpg", jpeg_bytes(number))
        return file.getvalue()


def stored(deployment: Deployment) -> set[str]:
    return deployment.jobs_with_objects()


# Requests


def test_every_answer_says_how_the_key_stands(deployment: Deployment) -> None:
    client = limited(deployment, requests=LONG)
    for left in (999, 998):
        headers = client.get("/v1/jobs").headers
        assert headers["RateLimit-Policy"] == '"requests";q=1000;w=86400'
        found = re.fullmatch(r'"requests";r=(\d+);t=(\d+)', headers["RateLimit"])
        assert found is not None
        assert int(found[1]) == left
        assert 0 < int(found[2]) <= 86400
    refusal = client.get("/v1/jobs/job_nothing")
    refused(refusal, "job_not_found")
    assert ";r=997;" in refusal.headers["RateLimit"]
    assert client.get("/v1/limits").json["requests"]["remaining"] == 996


def test_more_requests_than_a_key_may_send_are_refused(deployment: Deployment) -> None:
    client = limited(deployment, requests="2/day")
    assert [client.get("/v1/jobs").status_code for _ in range(2)] == [200, 200]
    answer = client.get("/v1/jobs")
    refused(answer, "rate_limited", "2 requests in 86400 s")
    assert answer.status_code == 429
    assert ";r=0;" in answer.headers["RateLimit"]
    assert answer.headers["Retry-After"] == answer.headers["RateLimit"].rpartition("t=")[2]
    refused(client.upload(*photos(1)), "rate_limited")


def test_another_key_of_the_owner_is_counted_by_itself(deployment: Deployment) -> None:
    first = limited(deployment, requests="1/day")
    second = deployment.client(deployment.owner, limits={"requests": "1/day"})
    assert first.get("/v1/jobs").status_code == second.get("/v1/jobs").status_code == 200
    refused(first.get("/v1/jobs"), "rate_limited")


def test_a_new_window_begins_anew(deployment: Deployment) -> None:
    client = limited(deployment, requests="1/second")
    answers = [client.get("/v1/jobs") for _ in range(20)]
    assert 429 in {answer.status_code for answer in answers}
    assert {answer.headers["Retry-After"] for answer in answers if answer.status_code == 429} == {"1"}
    wait_until(lambda: client.get("/v1/jobs").status_code == 200, what="the next window")


def test_signing_in_counts(deployment: Deployment) -> None:
    client = limited(deployment, requests="2/day")
    key = json.dumps({"key": client.key}).encode()
    answers = [client.post("/v1/session", key, JSON) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    refused(answers[-1], "rate_limited")


def test_the_settings_rate_holds_for_keys_that_say_nothing(client: Client) -> None:
    assert client.get("/v1/jobs").headers["RateLimit-Policy"] == '"requests";q=1000;w=10'


def test_a_key_may_be_free_of_limits(deployment: Deployment) -> None:
    client = limited(deployment, requests=None)
    assert "RateLimit" not in client.get("/v1/jobs").headers
    assert client.get("/v1/limits").json["requests"] is None


@pytest.mark.parametrize(
    ("text", "rate"), [("50/second", (50, 1)), ("1000 per 10 seconds", (1000, 10)), ("6/2minutes", (6, 120))]
)
def test_rates_are_read(text: str, rate: tuple[int, int]) -> None:
    assert (parse_rate(text).requests, parse_rate(text).seconds) == rate


@pytest.mark.parametrize("text", ["", "50", "0/second", "5/fortnight", "5/Second", "5 per", "5/0 seconds"])
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no rate"):
        parse_rate(text)


def test_limits_that_a_newer_version_wrote_are_left_alone(deployment: Deployment) -> None:
    client = limited(deployment, images_per_job=2, images_per_year=5)
    assert client.get("/v1/limits").json["images_per_job"] == 2


# Images


def test_images_count_and_the_quota_refuses_more_before_anything_is_stored(deployment: Deployment) -> None:
    client = limited(deployment, images_per_day=3)
    client.job(*photos(2))
    before = stored(deployment)
    answer = client.upload(*photos(2))
    refused(answer, "quota_exceeded", "3 images a day")
    assert 0 < int(answer.headers["Retry-After"]) <= 86400
    assert stored(deployment) == before
    client.job(*photos(1))
    refused(client.upload(*photos(1)), "quota_exceeded")
    assert used(client)[:2] == (2, 3)
    assert stored(deployment) - before == {client.get("/v1/jobs").json["data"][0]["id"]}


def test_quotas_are_the_owners_and_begin_anew_each_day(deployment: Deployment) -> None:
    limits = {"images_per_day": 1}
    limited(deployment, **limits).job(*photos(1))
    owner = deployment.owner
    other_key = deployment.client(owner, limits=limits)
    refused(other_key.upload(*photos(1)), "quota_exceeded")
    limited(deployment, **limits).job(*photos(1))
    with deployment.services.store.database.write() as connection:
        connection.execute(update(UsageRow).where(UsageRow.owner == owner).values(day=date(2001, 1, 1)))
    assert used(other_key)[1] == 0
    other_key.job(*photos(1))
    assert used(other_key)[1] == 1


def test_a_repeated_request_is_no_new_work(deployment: Deployment) -> None:
    client = limited(deployment, images_per_day=2, concurrent_jobs=1)
    answers = [client.upload(*photos(2), Idempotency_Key="once") for _ in range(3)]
    assert len({answer.json["id"] for answer in answers}) == 1
    assert used(client)[:2] == (1, 2)


def test_manifests_and_references_count_too(deployment: Deployment) -> None:
    client = limited(deployment, images_per_day=3)
    lines = b"".join(b'{"url": "https://example.com/%d.jpg"}\n' % n for n in range(4))
    refused(client.post("/v1/jobs", lines, "application/x-ndjson"), "quota_exceeded")
    images = [{"url": f"https://example.com/{n}.jpg"} for n in range(4)]
    refused(client.post("/v1/jobs", json.dumps({"images": images}).encode(), JSON), "quota_exceeded")
    assert used(client)[1] == 0
    body = json.dumps({"images": images[:3]}).encode()
    assert client.post("/v1/jobs", body, JSON).status_code == 202
    assert used(client) == (1, 3, 0)


def test_what_is_found_later_ends_the_job_with_the_code(deployment: Deployment) -> None:
    client = limited(deployment, images_per_day=3)
    client.job(*photos(1))
    job = client.job(part("archive", _zip(5), "five.zip"))
    services = deployment.services
    for _ in range(20):
        services.expander.run_once()
        job = client.get(f"/v1/jobs/{job['id']}").json
        if job["status"] != "preparing":
            break
    assert (job["status"], job["counts"]["total"]) == ("queued", 2)
    assert job["error"]["code"] == "quota_exceeded"
    assert used(client)[1] == 3
    caption(services, job["id"])
    assert client.get(f"/v1/jobs/{job['id']}").json["status"] == "completed"


def test_a_retry_counts_what_it_tries_again(deployment: Deployment) -> None:
    client = limited(deployment, images_per_day=3)
    job = client.job(*photos(2))
    caption(deployment.services, job["id"], failing=[0, 1])
    refused(client.post(f"/v1/jobs/{job['id']}/retry"), "quota_exceeded")
    assert client.get(f"/v1/jobs/{job['id']}").json["counts"]["failed"] == 2
    assert used(client)[1] == 2


def test_a_job_holds_no_more_images_than_the_key_says(deployment: Deployment) -> None:
    client = limited(deployment, images_per_job=2)
    refused(client.upload(*photos(3)), "too_many_images", "at most 2 images")
    client.job(*photos(2))
    job = client.job(part("archive", _zip(3), "three.zip"))
    while deployment.services.expander.run_once():
        pass
    job = client.get(f"/v1/jobs/{job['id']}").json
    assert (job["counts"]["total"], job["error"]["code"]) == (2, "too_many_images")
    assert limited(deployment, images_per_job=10**6).get("/v1/limits").json["images_per_job"] == 60


# Bytes


def test_bytes_count_and_are_refused_by_what_is_announced(deployment: Deployment) -> None:
    client = limited(deployment, bytes_per_day=20_000)
    client.job(*photos(1))
    size = used(client)[2]
    assert len(jpeg_bytes(0)) < size < len(jpeg_bytes(0)) + 500
    before = stored(deployment)
    big = part("images", jpeg_bytes(1) + bytes(20_000 - size), "big.jpg")
    refused(client.upload(big), "quota_exceeded", "20000 bytes a day")
    assert stored(deployment) == before
    assert used(client)[2] == size


def test_announced_uploads_count(deployment: Deployment) -> None:
    client = limited(deployment, bytes_per_day=100)
    files = [{"name": "a.jpg", "content_type": "image/jpeg", "size": 60}]
    body = json.dumps({"files": files}).encode()
    assert client.post("/v1/uploads", body, JSON).status_code == 201
    refused(client.post("/v1/uploads", body, JSON), "quota_exceeded")
    assert used(client)[2] == 60


# Jobs at once


def test_as_many_jobs_at_once_as_the_key_says(deployment: Deployment) -> None:
    client = limited(deployment, concurrent_jobs=1)
    job = client.job(*photos(1))
    before = stored(deployment)
    answer = client.upload(*photos(1))
    refused(answer, "quota_exceeded", "1 jobs at once")
    assert answer.headers["Retry-After"] == "30"
    assert stored(deployment) == before
    caption(deployment.services, job["id"], failing=[0])
    second = client.job(*photos(1))
    refused(client.post(f"/v1/jobs/{job['id']}/retry"), "quota_exceeded")
    client.call("DELETE", f"/v1/jobs/{second['id']}")
    assert client.post(f"/v1/jobs/{job['id']}/retry").status_code == 202


@pytest.mark.parametrize("limits", [{"concurrent_jobs": 3}, {"images_per_day": 3}])
def test_quotas_hold_however_many_submit_at_once(deployment: Deployment, limits: Mapping[str, int]) -> None:
    client = limited(deployment, **limits)
    statuses: list[int] = []

    def submit() -> None:
        statuses.append(Client(deployment.app, client.key).upload(*photos(1)).status_code)

    threads = [threading.Thread(target=submit) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [202] * 3 + [429] * 5
    assert used(client)[:2] == (3, 3)
