"""Cancel, retry, delete and webhooks of a job of 1,000 images that workers have in hand, in both modes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import func, select, update

from jobs.errors import RequestError
from jobs.objects import job_prefix
from jobs.queue import publish
from jobs.records import Item, ItemStatus, Job
from jobs.services import Services
from jobs.store.schema import upgrade
from jobs.tables import ChunkRow, DeliveryRow, ItemRow, JobRow
from tests.captioners import ColourCaptioner
from tests.clusters import OWNER, run_cluster
from tests.processes import wait_until
from tests.servers import S3, Postgres, Redis
from tests.unit.worker.conftest import Deployment, deploy
from tests.web import Web, answer, serving
from worker.embedded import EmbeddedWorker

__all__ = ["deploy"]

IMAGES = 1000
# One batch of eight images takes this long: the job runs for at least six seconds.
SLOW = {"seconds_per_batch": 0.05}
# What the design promises is seconds; a machine that runs other tests too gets a few more.
CANCEL_S = 15.0

Start = tuple[Services, Callable[[], str]]


@contextmanager
def distributed(request: pytest.FixtureRequest) -> Iterator[Start]:
    """One slow worker process on real servers."""
    redis: Redis = request.getfixturevalue("redis_server")
    postgres: Postgres = request.getfixturevalue("postgres")
    s3: S3 = request.getfixturevalue("s3")
    settings = {"CAPTIONFLEET_TRUSTED_HOSTS": "127.0.0.1"}
    with run_cluster(redis, postgres, request.getfixturevalue("postgres_url"), s3, settings) as cluster:
        cluster.worker(**SLOW, CAPTIONFLEET_BATCH_SIZE=8)
        yield cluster.services, lambda: cluster.pictures(IMAGES)


@contextmanager
def embedded(request: pytest.FixtureRequest) -> Iterator[Start]:
    """Server and slow worker in this process."""
    make: Callable[..., Deployment] = request.getfixturevalue("deploy")
    deployment = make(batch_size=8, trusted_hosts=("127.0.0.1",))
    services = deployment.services
    upgrade(services.store.database)
    with EmbeddedWorker(services, lambda _settings, _model: ColourCaptioner(**SLOW)) as worker:
        assert worker.wait_loaded(30)
        yield services, lambda: deployment.pictures(IMAGES, chunk=16)


@pytest.mark.parametrize("mode", [distributed, embedded])
def test_every_turn_of_a_running_job(
    request: pytest.FixtureRequest, mode: Callable[[pytest.FixtureRequest], Iterator[Start]]
) -> None:
    with mode(request) as (services, submit), serving(lambda handler, came: answer(handler)) as receiver:  # type: ignore[attr-defined]
        job_id = submit()
        _hook(services, job_id, receiver.url())
        kept = _cancel(services, job_id)
        _retry(services, job_id, kept)
        wait_until(lambda: len(_events(receiver)) >= 2, 30, "both events")
        assert _events(receiver) == [(job_id, "job.canceled"), (job_id, "job.completed")]
        _delete(services, job_id)


def _hook(services: Services, job_id: str, url: str) -> None:
    with services.store.database.write() as connection:
        connection.execute(update(JobRow).where(JobRow.id == job_id).values(webhook_url=url))


def _cancel(services: Services, job_id: str) -> dict[int, Item]:
    """Cancel in the midst of the job; return the captions that it keeps."""
    wait_until(lambda: _job(services, job_id).counts.succeeded >= 100, 60, "a hundred captions")
    with pytest.raises(RequestError, match="retry it when it has finished"):
        services.store.jobs.retry(OWNER, job_id)
    began = time.monotonic()
    services.store.jobs.cancel(OWNER, job_id)
    assert _job(services, job_id).status == "canceling"
    assert _job(services, job_id).counts.queued == 0
    wait_until(lambda: _job(services, job_id).status == "canceled", CANCEL_S, "the cancel's end")
    print(f"canceled after {time.monotonic() - began:.1f} s")
    counts = _job(services, job_id).counts
    items = _items(services, job_id)
    kept = {item.position: item for item in items if item.status is ItemStatus.SUCCEEDED}
    assert (len(kept), counts.succeeded + counts.canceled) == (counts.succeeded, IMAGES)
    assert counts.canceled > 0
    assert {item.status for item in items} == {ItemStatus.SUCCEEDED, ItemStatus.CANCELED}
    return kept


def _retry(services: Services, job_id: str, kept: dict[int, Item]) -> None:
    """Caption the rest; what had a caption is not touched again."""
    publish(services.queue, services.store.jobs.retry(OWNER, job_id))
    wait_until(lambda: _job(services, job_id).status == "completed", 120, "the second round's end")
    items = _items(services, job_id)
    assert [item.caption for item in items] == [f"picture {number}" for number in range(IMAGES)]
    assert all(item == kept.get(item.position, item) for item in items)
    assert _job(services, job_id).counts.succeeded == IMAGES


def _delete(services: Services, job_id: str) -> None:
    """Delete: gone at once for its owner, then objects and every row."""
    services.store.jobs.delete(OWNER, job_id)
    with pytest.raises(RequestError):
        services.store.jobs.get(OWNER, job_id)
    wait_until(lambda: _rows(services, job_id) == 0, 60, "the rows' removal")
    assert services.objects.delete_prefix(job_prefix(job_id)) == 0


def _rows(services: Services, job_id: str) -> int:
    counted = [
        select(func.count()).where(column == job_id)
        for column in (JobRow.id, ItemRow.job_id, ChunkRow.job_id, DeliveryRow.job_id)
    ]
    with services.store.database.read() as connection:
        return sum(connection.execute(query).scalar_one() for query in counted)


def _events(receiver: Web) -> list[tuple[str, str]]:
    """Return the events that came, each once."""
    came = {one.headers["webhook-id"]: json.loads(one.body) for one in receiver.came}
    return [(said["data"]["id"], said["type"]) for said in came.values()]


def _job(services: Services, job_id: str) -> Job:
    return services.store.jobs.get(OWNER, job_id)[0]


def _items(services: Services, job_id: str) -> list[Item]:
    return [item for page in services.store.jobs.results(OWNER, job_id) for item in page]


def test_a_running_job_that_is_deleted_leaves_nothing(request: pytest.FixtureRequest) -> None:
    with embedded(request) as (services, submit):
        job_id = submit()
        wait_until(lambda: _job(services, job_id).counts.succeeded >= 50, 60, "fifty captions")
        _delete(services, job_id)
