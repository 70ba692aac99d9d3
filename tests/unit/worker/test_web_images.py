"""Images that lie on the web: fetched by the worker through the URL guard, each failing alone."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler

import pytest

from jobs.ids import new_id
from jobs.records import ImageReference, JobSpec
from jobs.store.submit import NewJob
from tests.captioners import colour_png
from tests.processes import wait_until
from tests.unit.worker.conftest import OWNER, Deployment, in_thread
from tests.web import Came, answer, serving
from worker import images


def web(handler: BaseHTTPRequestHandler, path: str, tries: int) -> None:
    """Serve pictures, and trouble of all kinds; /1 works at the third try."""
    match path.partition("?")[0]:
        case "/0.png":
            answer(handler, 200, colour_png(0), Content_Type="image/png")
        case "/1":
            answer(handler, 200 if tries == 3 else 503, colour_png(1), Content_Type="binary/octet-stream")
        case "/large":
            answer(handler, 200, bytes(6000), Content_Type="image/png")
        case "/page":
            answer(handler, 200, b"<html>", Content_Type="text/html")
        case "/inside":
            answer(handler, 302, Location="http://10.0.0.1/secret.png")
        case "/denied":
            answer(handler, 403)
        case "/broken":
            answer(handler, 500)
        case _:
            answer(handler, 404)


def submit(deployment: Deployment, urls: list[str]) -> str:
    job = NewJob(new_id("job"), OWNER, "small", "references", JobSpec())
    intake = deployment.services.intake
    intake.submit(job, intake.references(OWNER, [ImageReference(url=url) for url in urls]))
    return job.id


def test_images_on_the_web_are_fetched_and_fail_one_by_one(
    deploy: Callable[..., Deployment], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "RETRY_PAUSES_WEB_S", (0.01, 0.01))
    deployment = deploy(trusted_hosts=("127.0.0.1",), max_image_bytes=5000)
    came: list[str] = []

    def answering(handler: BaseHTTPRequestHandler, request: Came) -> None:
        came.append(request.path)
        web(handler, request.path, came.count(request.path))

    with serving(answering) as server:
        paths = ["/0.png?size=large", "/1", "/large", "/page", "/inside", "/denied", "/broken", "/gone"]
        urls = [server.url(path) for path in paths] + ["http://169.254.169.254/latest", "http://[::1]:22/x"]
        job_id = submit(deployment, urls)
        with deployment.pipeline() as pipeline:
            pipeline.run_chunk(job_id, 0)
    items = deployment.items(job_id)
    assert [item.caption for item in items[:2]] == ["picture 0", "picture 1"]
    assert (items[0].name, items[0].source) == ("0.png", urls[0])
    assert [item.error.code for item in items[2:] if item.error] == [
        "image_too_large",
        "unsupported_format",
        "url_forbidden",
        "access_denied",
        "download_failed",
        "object_not_found",
        "url_forbidden",
        "url_forbidden",
    ]
    assert came.count("/broken") == 3


def test_a_small_job_does_not_wait_for_the_downloads_of_a_large_one(
    deploy: Callable[..., Deployment], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "THREADS_WEB", 2)
    deployment = deploy(trusted_hosts=("127.0.0.1",))
    opened = threading.Event()

    def answering(handler: BaseHTTPRequestHandler, request: Came) -> None:
        if request.path.startswith("/slow"):
            opened.wait(60)
        answer(handler, 200, colour_png(0), Content_Type="image/png")

    with serving(answering) as server:
        large = submit(deployment, [server.url(f"/slow/{number}.png") for number in range(33)])
        small = submit(deployment, [server.url("/0.png")])
        with deployment.pipeline() as pipeline:
            in_thread(lambda: pipeline.run_chunk(large, 0))
            wait_until(lambda: len(server.came) == 2, what="downloads in all places of large jobs")
            run = in_thread(lambda: pipeline.run_chunk(small, 0))
            try:
                run.join(10)
                assert deployment.job(small).status == "completed"
            finally:
                opened.set()
