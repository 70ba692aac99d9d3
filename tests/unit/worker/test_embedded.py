"""The embedded worker: takes up what is there, serves small jobs beside large ones, and ends well."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

import worker.embedded
from jobs.errors import StartupError
from jobs.settings import Settings
from model.captioner import Captioner
from tests.processes import children, wait_until
from tests.unit.worker.conftest import Deployment
from worker.embedded import EmbeddedWorker
from worker.loading import cache_folder, load_model

Deploy = Callable[..., Deployment]


@pytest.fixture
def deployment(deploy: Deploy) -> Deployment:
    return deploy(batch_size=4, concurrency=1)


def working(deployment: Deployment) -> EmbeddedWorker:
    return EmbeddedWorker(deployment.services, lambda _settings, _model: deployment.captioner)


def completed(deployment: Deployment, job_id: str) -> bool:
    return deployment.job(job_id).status == "completed"


def test_it_takes_up_what_an_earlier_process_left(deployment: Deployment) -> None:
    waiting, begun = deployment.pictures(3), deployment.pictures(3)
    deployment.services.store.chunks.claim(begun, 0, "dead", 600, 2)
    # The queue lived in the memory of the process that died.
    while deployment.services.queue.take(["captionfleet.small.fast"], 0):  # type: ignore[attr-defined]
        pass
    with working(deployment) as running:
        assert running.wait_loaded(30)
        assert running.ready
        wait_until(lambda: completed(deployment, waiting) and completed(deployment, begun))
    assert deployment.job(begun).counts.succeeded == 3


def test_a_small_job_is_served_beside_a_large_one(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker.embedded, "GRACE_S", 0.3)
    deployment.captioner.seconds_per_batch = 0.3
    large = deployment.pictures(200, chunk=100)
    with working(deployment):
        wait_until(lambda: deployment.captioner.batches)
        started = time.monotonic()
        small = deployment.pictures(1)
        wait_until(lambda: completed(deployment, small))
        # The chunk in hand takes 7.5 s.
        assert time.monotonic() - started < 6
        assert deployment.job(large).status == "running"


def test_stopping_hands_back_and_ends_soon(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker.embedded, "GRACE_S", 0.3)
    deployment.captioner.seconds_per_batch = 0.4
    job_id = deployment.pictures(200, chunk=100)
    with working(deployment):
        wait_until(lambda: deployment.captioner.batches)
        stopped_at = time.monotonic()
    # The chunk in hand would take 10 s.
    assert time.monotonic() - stopped_at < 8
    chunk = deployment.chunk(job_id)
    assert (chunk.state, chunk.suspicions) == ("open", 0)


def _fail(*_: Any) -> NoReturn:
    raise RuntimeError("no such instruction")


@pytest.mark.parametrize("load", [load_model, _fail], ids=["absent", "raises"])
def test_a_model_that_cannot_be_loaded_is_said_and_kept_visible(
    deploy: Deploy, load: Callable[[Settings, str], Captioner]
) -> None:
    deployment = deploy(models=("small=/nonexistent/model",))
    with EmbeddedWorker(deployment.services, load) as running:
        assert not running.wait_loaded(30)
        assert not running.ready
        assert running.error is not None
        assert running.error.code == "checkpoint_invalid"


def test_stopping_before_the_model_is_loaded_leaves_no_process(deployment: Deployment) -> None:
    held, loading = threading.Event(), threading.Event()

    def load(_settings: Settings, _model: str) -> Captioner:
        loading.set()
        held.wait(20)
        return deployment.captioner

    with EmbeddedWorker(deployment.services, load):
        loading.wait(20)
        threading.Timer(0.2, held.set).start()
    assert not children()


def test_the_shipped_model_loads(tmp_path: Path) -> None:
    captioner = load_model(Settings(data_dir=tmp_path, user_cache=tmp_path, precision="f32"), "small")
    assert captioner.device == "cpu, f32"
    with pytest.raises(StartupError, match="cuda") as refusal:
        load_model(Settings(data_dir=tmp_path, device="cuda"), "small")
    assert refusal.value.code == "checkpoint_invalid"


def test_distributed_settings_have_no_embedded_worker(deploy: Deploy) -> None:
    from dataclasses import replace

    from jobs.queue.celery import CeleryQueue

    services = replace(deploy().services, queue=CeleryQueue("redis://127.0.0.1:1"))
    with pytest.raises(StartupError, match="captionfleet worker"):
        EmbeddedWorker(services)
    services.queue.close()


def test_compiled_models_are_kept_where_the_settings_say_and_else_where_they_can_be(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    data = tmp_path / "data"
    for settings, folder in [
        (Settings(data_dir=data, cache_dir=tmp_path / "mine", user_cache=tmp_path), tmp_path / "mine"),
        (Settings(data_dir=data, user_cache=tmp_path / "user"), tmp_path / "user" / "captionfleet"),
        (Settings(data_dir=data, user_cache=blocked), data / "cache"),
        (Settings(data_dir=data, cache_dir=blocked / "under"), None),
    ]:
        assert cache_folder(settings) == folder
        assert folder is None or folder.is_dir()
