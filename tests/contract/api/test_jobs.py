"""Reading, waiting, paging, downloading, canceling, retrying and deleting."""

from __future__ import annotations

import csv
import io
import json
import threading
import time
import urllib.request
from collections.abc import Callable

import pytest

from api.app import ROUTES
from api.context import EXTENSION
from api.routes import Route
from jobs.ids import new_id
from jobs.records import JobSpec
from jobs.services import Services
from jobs.store.chunks import ChunkResult, ItemResult
from jobs.store.submit import NewItem, NewJob
from tests.contract.api.support import Client, Deployment, caption, part, photos, refused
from tests.pictures import jpeg_bytes
from tests.processes import wait_until

NOBODYS = "/v1/jobs/job_" + "0" * 26


def once_awaited(client: Client, job_id: str, change: Callable[[], object]) -> threading.Thread:
    """Change a job from another thread when a request waits for that."""
    watch = client.http.application.extensions[EXTENSION].watch

    def run() -> None:
        wait_until(
            lambda: job_id in {one.job_id for one in tuple(watch._watches)}, what="a request that waits"
        )
        change()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_jobs_are_listed_newest_first_in_pages(client: Client, services: Services) -> None:
    made = [client.job(*photos(1))["id"] for _ in range(5)]
    caption(services, made[2])
    seen: list[str] = []
    path = "/v1/jobs?limit=2"
    while path:
        page = client.get(path).json
        seen += [job["id"] for job in page["data"]]
        path = f"/v1/jobs?limit=2&cursor={page['next_cursor']}" if page["next_cursor"] else ""
    assert seen == sorted(made, reverse=True)
    assert [job["id"] for job in client.get("/v1/jobs?status=completed").json["data"]] == [made[2]]
    assert client.get("/v1/jobs?status=canceled").json["data"] == []


def test_items_are_listed_by_position_in_pages(client: Client, services: Services) -> None:
    job = client.job(*photos(5))
    caption(services, job["id"], failing=[3])
    path, seen = job["links"]["items"], []
    cursor = ""
    while cursor is not None:
        page = client.get(f"{path}?limit=2{cursor and f'&cursor={cursor}'}").json
        seen += [item["position"] for item in page["data"]]
        cursor = page["next_cursor"]
    assert seen == [0, 1, 2, 3, 4]
    assert [item["position"] for item in client.get(f"{path}?status=failed").json["data"]] == [3]
    assert client.get(f"{path}/4").json["caption"] == "photo 4"


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/v1/jobs?limit=0", "limit: input should be greater than or equal to 1"),
        ("/v1/jobs?limit=201", "less than or equal to 200"),
        ("/v1/jobs?limit=x", "limit"),
        ("/v1/jobs?status=happy", "status"),
        ("/v1/jobs?cursor=x", "cursor"),
        ("/v1/jobs?cursor=%00%ff", "cursor"),
        ("/v1/jobs?cursor=aTE", "cursor"),
        ("/v1/jobs?limit=1&limit=2", "'limit' is given more than once"),
        ("/v1/jobs?q=cat", "unknown query parameter 'q'; there are: status, limit, cursor"),
        (f"{NOBODYS}?wait=31", "wait"),
        (f"{NOBODYS}?wait=nan", "wait"),
        (f"{NOBODYS}/items?sort=name", "sort"),
        (f"{NOBODYS}/items?q=%00", "q: "),
        (f"{NOBODYS}/items?q={'x' * 201}", "at most 200 characters"),
        (f"{NOBODYS}/items?sort=score&cursor=aTE", "cursor"),
        (f"{NOBODYS}/items?cursor=ajE", "cursor"),
        (f"{NOBODYS}/results?format=xlsx", "format"),
        (f"{NOBODYS}/results?partial=perhaps", "partial"),
        ("/v1/models?x=1", "none here"),
    ],
)
def test_wrong_query_parameters_are_named(client: Client, path: str, words: str) -> None:
    refused(client.get(path), "invalid_request", words)


def test_an_unchanged_job_is_not_sent_again(client: Client, services: Services) -> None:
    path = client.job(*photos(1))["links"]["self"]
    etag = client.get(path).headers["ETag"]
    same = client.get(path, If_None_Match=etag)
    assert (same.status_code, same.data, same.headers["ETag"]) == (304, b"", etag)
    assert same.headers["Retry-After"]
    caption(services, path.rpartition("/")[2])
    changed = client.get(path, If_None_Match=etag)
    assert changed.status_code == 200
    assert changed.headers["ETag"] != etag


def test_wait_answers_when_the_job_changes(client: Client, services: Services) -> None:
    job = client.job(*photos(1))
    captioning = once_awaited(client, job["id"], lambda: caption(services, job["id"]))
    began = time.monotonic()
    first = client.get(f"{job['links']['self']}?wait=30")
    assert first.json["status"] in ("running", "completed")
    captioning.join()
    last = client.get(f"{job['links']['self']}?wait=30", If_None_Match=first.headers["ETag"])
    assert last.status_code == (304 if first.json["status"] == "completed" else 200)
    assert time.monotonic() - began < 25


def test_wait_does_not_wait_for_what_is_there_already(client: Client, services: Services) -> None:
    job = client.job(*photos(1))
    old = client.get(job["links"]["self"]).headers["ETag"]
    began = time.monotonic()
    assert client.get(f"{job['links']['self']}?wait=30", If_None_Match='W/"0"').status_code == 200
    caption(services, job["id"])
    done = client.get(f"{job['links']['self']}?wait=30")
    assert done.json["status"] == "completed"
    assert client.get(f"{job['links']['self']}?wait=30", If_None_Match=old).status_code == 200
    assert (
        client.get(f"{job['links']['self']}?wait=30", If_None_Match=done.headers["ETag"]).status_code == 304
    )
    assert time.monotonic() - began < 25


def test_wait_ends_by_itself(client: Client) -> None:
    job = client.job(*photos(1))
    etag = client.get(job["links"]["self"]).headers["ETag"]
    answer = client.get(f"{job['links']['self']}?wait=0.2", If_None_Match=etag)
    assert answer.status_code == 304
    assert client.get(f"{job['links']['self']}?wait=0.2").json["status"] == "queued"


def test_results_come_at_the_end_or_partially(client: Client, services: Services) -> None:
    job = client.job(*photos(3))
    early = client.get(job["links"]["results"])
    refused(early, "job_not_finished", "partial=1")
    assert early.headers["Retry-After"]
    partial = client.get(job["links"]["results"] + "?partial=1")
    assert [json.loads(line)["status"] for line in partial.text.splitlines()] == ["queued"] * 3
    caption(services, job["id"], failing=[2])
    answer = client.get(job["links"]["results"])
    assert answer.headers["Content-Disposition"] == f'attachment; filename="{job["id"]}.jsonl"'
    items = client.get(job["links"]["items"]).json["data"]
    assert [json.loads(line) for line in answer.text.splitlines()] == items


def test_results_longer_than_a_page_are_complete(deployment: Deployment) -> None:
    client = deployment.client()
    job_id = new_id("job")
    items = (NewItem(f"{n}.jpg", f"{n}.jpg", "upload", f"k/{n}") for n in range(2500))
    job = NewJob(job_id, deployment.owner, "small", "upload", JobSpec())
    deployment.services.store.submit.insert_job(job, items)
    answer = client.get(f"/v1/jobs/{job_id}/results?partial=1")
    assert [json.loads(line)["position"] for line in answer.text.splitlines()] == list(range(2500))
    table = client.get(f"/v1/jobs/{job_id}/results?partial=true&format=csv").text
    assert [row["position"] for row in csv.DictReader(io.StringIO(table))] == [str(n) for n in range(2500)]


def test_csv_results_can_be_opened_in_a_spreadsheet(client: Client, services: Services) -> None:
    names = ["=1+2.jpg", "@SUM(A1)", "+x", "-y", 'a"b,c;d.jpg']
    job = client.job(
        *(part("images", jpeg_bytes(n), name.replace('"', "%22")) for n, name in enumerate(names))
    )
    held = services.store.chunks.claim(job["id"], 0, "w", 30, 2)
    assert held is not None
    texts = ["=cmd|' /C calc'!A0", "a dog\nruns", "a, b", "\tx", "plain"]
    results = [ItemResult(n, ((text, -0.5), ("other", -1.0))) for n, text in enumerate(texts)]
    services.store.chunks.record([ChunkResult(held, results)])
    answer = client.get(job["links"]["results"] + "?format=csv")
    assert answer.mimetype == "text/csv"
    assert answer.headers["Content-Disposition"].endswith('.csv"')
    rows = list(csv.DictReader(io.StringIO(answer.text, newline="")))
    assert [row["name"] for row in rows] == ["'=1+2.jpg", "'@SUM(A1)", "'+x", "'-y", 'a"b,c;d.jpg']
    assert [row["caption"] for row in rows] == ["'=cmd|' /C calc'!A0", "a dog\nruns", "a, b", "'\tx", "plain"]
    assert [row["score"] for row in rows] == ["-0.5"] * 5
    assert json.loads(rows[0]["alternatives"]) == [{"text": "other", "score": -1.0}]
    assert answer.data.count(b"\r\n") == 6


def test_an_image_is_served_as_what_it_is(client: Client, deployment: Deployment) -> None:
    photo = jpeg_bytes(7)
    job = client.job(
        part("images", photo, "Käse.jpg"), part("images", b"<script>alert(1)</script>", "x.html")
    )
    answer = client.get(f"{job['links']['items']}/0/image")
    trap = client.get(f"{job['links']['items']}/1/image")
    if deployment.services.settings.bucket is not None:
        for redirect, kind, content in (
            (answer, "image/jpeg", photo),
            (trap, "application/octet-stream", None),
        ):
            assert redirect.status_code == 302
            with urllib.request.urlopen(redirect.headers["Location"]) as served:
                assert served.headers["Content-Type"] == kind
                assert content is None or served.read() == content
        return
    assert (answer.data, answer.mimetype) == (photo, "image/jpeg")
    assert answer.headers["Content-Disposition"] == "inline; filename*=UTF-8''K%C3%A4se.jpg"
    assert "sandbox" in answer.headers["Content-Security-Policy"]
    assert (trap.mimetype, trap.headers["Content-Disposition"][:10]) == (
        "application/octet-stream",
        "attachment",
    )
    # Asked for again each time: after signing out it is not shown from the cache.
    assert answer.headers["Cache-Control"] == "private, no-cache"
    again = client.get(f"{job['links']['items']}/0/image", If_None_Match=answer.headers["ETag"])
    assert again.status_code == 304


def test_an_image_whose_bytes_are_gone_is_not_found(client: Client, deployment: Deployment) -> None:
    job = client.job(*photos(1))
    deployment.objects(job["id"])
    if deployment.services.settings.bucket is None:
        refused(client.get(f"{job['links']['items']}/0/image"), "not_found", "gone")


def test_positions_outside_the_job_are_not_found(client: Client) -> None:
    items = client.job(*photos(1))["links"]["items"]
    for position in ("1", "2147483647", "2147483648", "9" * 40):
        refused(client.get(f"{items}/{position}"), "not_found")
        refused(client.get(f"{items}/{position}/image"), "not_found")
    for position in ("-1", "x", "1.5", ""):
        refused(client.get(f"{items}/{position}"), "not_found")


def test_cancel_stops_a_job_and_may_be_repeated(client: Client, services: Services) -> None:
    job = client.job(*photos(2))
    for _ in range(2):
        answer = client.post(job["links"]["cancel"])
        assert (answer.status_code, answer.json["status"]) == (202, "canceling")
    assert answer.json["counts"]["canceled"] == 2
    assert [item["status"] for item in client.get(job["links"]["items"]).json["data"]] == ["canceled"] * 2
    refused(client.post(job["links"]["retry"]), "job_state_conflict", "canceling")
    while services.store.sweeps.finish_cancels():
        pass
    assert client.get(job["links"]["self"]).json["status"] == "canceled"
    again = client.post(job["links"]["retry"])
    assert (again.status_code, again.json["status"], again.json["counts"]["queued"]) == (202, "queued", 2)


def test_turns_at_the_wrong_time_are_refused(client: Client, services: Services) -> None:
    job = client.job(*photos(1))
    refused(client.post(job["links"]["retry"]), "job_state_conflict", "queued")
    caption(services, job["id"])
    refused(client.post(job["links"]["cancel"]), "job_state_conflict", "completed")
    refused(client.post(job["links"]["retry"]), "job_state_conflict", "nothing to retry")


def test_retry_announces_the_failed_images(client: Client, services: Services) -> None:
    job = client.job(*photos(3))
    caption(services, job["id"], failing=[0, 2])
    before = services.queue.depth("captionfleet.small.fast")
    assert client.post(job["links"]["retry"]).json["counts"]["queued"] == 2
    assert services.queue.depth("captionfleet.small.fast") == before + 1
    caption(services, job["id"])
    assert client.get(job["links"]["self"]).json["counts"]["succeeded"] == 3


def test_a_deleted_job_is_gone_at_once(client: Client) -> None:
    job = client.job(*photos(1))
    answer = client.call("DELETE", job["links"]["self"])
    assert (answer.status_code, answer.json) == (202, {"id": job["id"], "object": "job", "deleted": True})
    refused(client.get(job["links"]["self"]), "job_not_found")
    refused(client.call("DELETE", job["links"]["self"]), "job_not_found")
    assert client.get("/v1/jobs").json["data"] == []


@pytest.mark.parametrize(
    "route", [r for r in ROUTES if "{job_id}" in r.path], ids=lambda r: f"{r.method} {r.path}"
)
def test_what_belongs_to_somebody_else_does_not_exist(deployment: Deployment, route: Route) -> None:
    job = deployment.client("ann").job(*photos(1))
    bob = deployment.client("bob")
    for job_id in (job["id"], "job_" + "0" * 26, "job_x", "%00", "' or 1=1"):
        path = route.path.replace("{job_id}", job_id).replace("{position}", "0")
        answer = bob.call(route.method, path)
        assert answer.status_code == 404
        assert answer.json["code"] == "job_not_found"
