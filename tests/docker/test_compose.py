"""The compose stack for real: the README's quickstart, containers killed, workers scaled, health, Flower.

`make test-docker` runs it; where no Docker engine answers it is skipped, with the reason.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.docker.stack import ROOT, Stack, docker, health, log_of, once_it_has_begun, run
from tests.pictures import jpeg_bytes
from tests.processes import wait_until

# Long enough for containers to be killed in the middle of it.
PHOTOS = 300
# Of each process of a container: how many seccomp filters it is under, and whether it decodes images.
FILTERS = """
import pathlib
for folder in pathlib.Path('/proc').glob('[0-9]*'):
    status = dict(line.split(':', 1) for line in (folder / 'status').read_text().splitlines())
    command = (folder / 'cmdline').read_text().split('\\0')
    print(status['Seccomp_filters'].strip(), 'worker.decode_child' in command)
"""
SIGNAL_ALL = "import os, signal; os.kill(-1, signal.{})"

pytestmark = [pytest.mark.docker, pytest.mark.timeout(3000)]


@pytest.fixture(scope="module")
def stack(images: None) -> Iterator[Stack]:
    stack = Stack("captionfleet-test")
    try:
        stack.up()
        stack.make_key()
        yield stack
    finally:
        stack.down()


def test_quickstart(stack: Stack, tmp_path: Path) -> None:
    run("curl", "--fail", "--silent", f"{stack.url}/healthz")
    photo = ["-F", "image=@examples/photos/dog.jpg", f"{stack.url}/v1/captions"]
    key = ["-H", f"Authorization: Bearer {stack.key}"]
    item = json.loads(run("curl", "--silent", *key, *photo))
    assert item["status"] == "succeeded", item
    assert "dog" in item["caption"]
    assert json.loads(run("curl", "--silent", *photo))["status"] == 401

    settings = {"CAPTIONFLEET_URL": stack.url, "CAPTIONFLEET_API_KEY": stack.key}
    command = [sys.executable, "-m", "cli.main", "submit", "examples/photos", "--wait"]
    results = tmp_path / "captions.jsonl"
    run(*command, "-o", str(results), **settings)
    captions = [json.loads(line) for line in results.read_text().splitlines()]
    assert len(captions) == len(list((ROOT / "examples/photos").glob("*.jpg")))
    assert all(each["caption"] for each in captions)


def test_images_are_served_by_the_store_itself(stack: Stack) -> None:
    job = stack.submit([7])
    stack.items(job)
    image = stack.ask("GET", f"/v1/jobs/{job}/items/0/image", follow_redirects=True)
    assert image.history
    assert image.content == jpeg_bytes(7)


def test_killed_containers_cost_nothing(stack: Stack) -> None:
    stack.up("--scale", "worker=3", "--no-recreate")
    assert len(stack.containers("worker")) == 3
    job = stack.submit(range(1000, 1000 + PHOTOS))
    wait_until(once_it_has_begun(stack, job), 60, "the first captions")
    killed = [stack.containers(name)[0] for name in ("worker", "redis", "api", "s3", "postgres")]
    docker("kill", *killed)
    stack.up("--scale", "worker=3", "--no-recreate")
    items = stack.items(job)
    assert sorted(item["position"] for item in items) == list(range(PHOTOS))
    assert {item["status"] for item in items} == {"succeeded"}
    assert all(item["caption"] for item in items)


def test_containers_run_with_little(stack: Stack) -> None:
    for service in ("api", "worker"):
        (found,) = json.loads(docker("inspect", stack.containers(service)[0]))
        assert found["Config"]["User"] == "10001"
        assert found["HostConfig"]["ReadonlyRootfs"] is True
        assert found["HostConfig"]["CapDrop"] == ["ALL"]
        assert found["State"]["Health"]["Status"] == "healthy"


def test_decoding_is_confined_once_more(stack: Stack) -> None:
    worker = stack.containers("worker")[0]
    lines = docker("exec", worker, "python", "-c", FILTERS).splitlines()
    decoding = [int(line.split()[0]) for line in lines if line.endswith("True")]
    others = {int(line.split()[0]) for line in lines if line.endswith("False")}
    # Docker's own profile, where the engine has one, holds for all; the children have one filter more.
    assert decoding, lines
    assert set(decoding) == {count + 1 for count in others}
    assert "cannot restrict" not in log_of(worker)


def test_a_stuck_worker_is_unhealthy(stack: Stack) -> None:
    worker = stack.containers("worker")[0]
    # As its own user, who may signal nothing but the worker and its children.
    docker("exec", worker, "python", "-c", SIGNAL_ALL.format("SIGSTOP"))
    wait_until(lambda: health(worker) == "unhealthy", 120, "being found stuck")
    docker("exec", worker, "python", "-c", SIGNAL_ALL.format("SIGCONT"))
    wait_until(lambda: health(worker) == "healthy", 60, "being found well")
    (item,) = stack.items(stack.submit([5000]))
    assert item["status"] == "succeeded"


def test_flower_lists_the_workers(stack: Stack) -> None:
    stack.up("--no-deps", "flower")
    workers = docker("inspect", "--format", "{{.Config.Hostname}}", *stack.containers("worker")).split()
    assert workers

    def listed() -> set[str]:
        try:
            page = httpx.get(f"http://127.0.0.1:{stack.flower_port}/workers?json=1").raise_for_status()
        except httpx.TransportError:
            return set()  # It is starting.
        return {worker["hostname"].rpartition("-")[0] for worker in page.json()["data"] if worker["status"]}

    wait_until(lambda: listed() == {f"small@{name}" for name in workers}, 60, "the workers in Flower")
