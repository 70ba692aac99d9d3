"""The embedded image as the README runs it: one container, and one volume that outlives it."""

from __future__ import annotations

import contextlib
import re
import uuid
from collections.abc import Iterator

import pytest

from tests.docker.stack import EMBEDDED_IMAGE, Service, docker, health, log_of
from tests.processes import reserve_port, wait_until

pytestmark = [pytest.mark.docker, pytest.mark.timeout(3000)]


@pytest.fixture
def volume(images: None) -> Iterator[str]:
    name = f"captionfleet-test-{uuid.uuid4().hex}"
    yield name
    docker("volume", "rm", "--force", name)


@contextlib.contextmanager
def running(volume: str, *options: str) -> Iterator[tuple[Service, str]]:
    """Run the image until it is healthy; gives the service and the container."""
    port = reserve_port()
    more = ["-p", f"127.0.0.1:{port}:8080", "-v", f"{volume}:/data", *options]
    container = docker("run", "--detach", *more, EMBEDDED_IMAGE).strip()
    try:
        wait_until(lambda: health(container) == "healthy", 120, "the embedded container's health")
        yield Service(f"http://127.0.0.1:{port}"), container
    finally:
        docker("rm", "--force", container)


def printed_keys(container: str) -> list[str]:
    """The API keys in a container's log."""
    return re.findall(r"cf_live_\w+", log_of(container))


def test_data_outlive_the_container(volume: str) -> None:
    with running(volume) as (service, container):
        (service.key,) = printed_keys(container)
        job = service.submit([1, 2, 3])
        items = service.items(job)
        assert {item["status"] for item in items} == {"succeeded"}
        docker("kill", container)
        docker("start", container)
        wait_until(lambda: service.job(job), 60, "the API after being killed")
        assert service.items(job) == items
    # As confined as anybody may want it.
    confined = ["--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
    with running(volume, *confined) as (again, container):
        assert printed_keys(container) == []
        again.key = service.key
        assert again.items(job) == items
        assert {item["status"] for item in again.items(again.submit([4, 5]))} == {"succeeded"}
