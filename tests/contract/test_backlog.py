"""How much work waits: read from the store, told to CloudWatch."""

from __future__ import annotations

import socket
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import boto3
import pytest
from sqlalchemy import update

from jobs.backlog import BacklogMetric
from jobs.settings import load_settings
from jobs.store import Store
from jobs.store.workers import Worker
from jobs.tables import JobRow
from tests.contract.stores import captioned, claim, new_job, run_to_end, store
from tests.servers import S3

__all__ = ["store"]


def _seen(store: Store, worker: str, rate: float | None) -> None:
    store.workers.see(Worker(worker, "small", "1", "sha256:0", "cpu", rate))


def test_finished_images_count_no_longer(store: Store) -> None:
    (empty,) = store.backlog.of_models(["small"])
    assert (empty.images, empty.oldest_s, empty.workers, empty.images_per_second) == (0, 0.0, 0, None)
    run_to_end(store, new_job(store, 20))
    first = new_job(store, 100)
    new_job(store, 50)
    held = claim(store, first, 0)
    store.chunks.record([captioned(held)])
    with store.database.write() as connection:
        hour_ago = datetime.now(UTC) - timedelta(hours=1)
        connection.execute(update(JobRow).where(JobRow.id == first).values(created_at=hour_ago))
    small, other = store.backlog.of_models(["small", "other"])
    assert small.images == 150 - len(held.items)
    assert 3590 < small.oldest_s < 3700
    assert other.images == 0


def test_seconds_are_one_worker_s(store: Store) -> None:
    new_job(store, 100)
    assert store.backlog.of_models(["small"])[0].seconds(50) == 2
    _seen(store, "fast", 30.0)
    _seen(store, "slow", 10.0)
    _seen(store, "new", None)
    (backlog,) = store.backlog.of_models(["small"])
    assert backlog.workers == 3
    assert backlog.images_per_second == 20
    assert backlog.seconds(50) == 5


def test_cloudwatch_is_told_zeros_too(
    store: Store, tmp_path: Path, moto_service: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in moto_service.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_service.endpoint)
    namespace = f"Test-{tmp_path.name}"
    monkeypatch.setenv("CAPTIONFLEET_CLOUDWATCH_NAMESPACE", namespace)
    monkeypatch.setenv("CAPTIONFLEET_MODELS", "small,idle")
    new_job(store, 100)
    assert BacklogMetric(load_settings(), store).run_once()
    assert not BacklogMetric(load_settings(), store).run_once(), "one process at a time tells it"
    client = boto3.client("cloudwatch")
    now = datetime.now(UTC)

    def told(name: str, model: str) -> list[float]:
        answer = client.get_metric_statistics(
            Namespace=namespace,
            MetricName=name,
            Dimensions=[{"Name": "Model", "Value": model}],
            StartTime=now - timedelta(minutes=5),
            EndTime=now + timedelta(minutes=5),
            Period=60,
            Statistics=["Maximum"],
        )
        return [point["Maximum"] for point in answer["Datapoints"]]

    assert told("BacklogSeconds", "small") == [2]
    assert told("BacklogImages", "small") == [100]
    assert told("BacklogSeconds", "idle") == [0]


def test_a_cloudwatch_that_hangs_is_not_waited_for_long(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.setenv(name, "us-east-1")
    monkeypatch.setenv("CAPTIONFLEET_CLOUDWATCH_NAMESPACE", "Test")
    monkeypatch.setattr("jobs.backlog.ANSWER_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{deaf.getsockname()[1]}")
        began = time.monotonic()
        BacklogMetric(load_settings(), store).run_once()
    assert "could not be told to CloudWatch" in caplog.text
    assert time.monotonic() - began < 20, "of itself the library waits for minutes"
