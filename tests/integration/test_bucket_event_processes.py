"""Real puts to captions: consumers killed between commit and delete, the real command, two at once."""

from __future__ import annotations

import json
import re
import sys
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from jobs.records import CaptionOptions, Item, Job, JobSpec
from tests.captioners import colour_png
from tests.clusters import OWNER, ROOT, Cluster, run_cluster
from tests.processes import Process, wait_until
from tests.servers import S3, Postgres, Redis

# The consumer as the product runs it, but when its job is committed it never comes to delete the messages.
STUCK = """
import pathlib, sys, time
from jobs.queue.sqs import Sqs
from jobs.settings import load_settings
from worker.bucket_events import run_events

class Stuck(Sqs):
    def delete(self, url, messages):
        pathlib.Path(sys.argv[1]).touch()
        time.sleep(600)

settings = load_settings()
run_events(settings, Stuck(settings.events_queue_url))
"""
VISIBILITY_S = 3


@dataclass
class Bucket:
    """A cluster, and a bucket whose new objects are announced to a queue."""

    cluster: Cluster
    s3: S3
    name: str
    queue: str

    def put(self, first: int, last: int) -> None:
        client = self.s3.client()

        def put(number: int) -> None:
            client.put_object(Bucket=self.name, Key=f"photos/{number}.png", Body=colour_png(number))

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(put, range(first, last)))
        client.close()

    def put_and_remove(self, name: str) -> None:
        client = self.s3.client()
        client.put_object(Bucket=self.name, Key=f"photos/{name}", Body=b"x")
        client.delete_object(Bucket=self.name, Key=f"photos/{name}")
        client.close()

    def process(self, *command: str | Path) -> Process:
        settings = {"CAPTIONFLEET_EVENTS_QUEUE_URL": self.queue}
        made = Process(
            [sys.executable, *command], environment=self.cluster.environment | settings, folder=ROOT
        )
        self.cluster.workers.append(made)  # Killed at the end, whatever happens.
        made.start()
        return made

    def die_before_deleting(self, marker: Path) -> None:
        """Run a consumer until it has made a job and is about to delete the messages, and kill it."""
        stuck = self.process("-c", STUCK, marker)
        wait_until(lambda: marker.exists() or not stuck.alive, 60, "a commit")
        assert stuck.alive, stuck.output
        assert self.jobs()
        stuck.kill()

    def die_anywhere(self) -> None:
        """Run the real command until it has made a job, and kill it wherever it is then."""
        before = len(self.jobs())
        consumer = self.process("-m", "cli.main", "events")
        wait_until(lambda: len(self.jobs()) > before, 60, "a job")
        consumer.kill()

    def jobs(self) -> list[Job]:
        store, before = self.cluster.services.store.jobs, None
        found: list[Job] = []
        while True:
            page, before = store.page(OWNER, None, 100, before)
            found += page
            if before is None:
                return found

    def items(self) -> list[Item]:
        return [item for job in self.jobs() for item in self.cluster.items(job.id)]

    def counted(self) -> tuple[int, int]:
        """Images in jobs, and those of them that have captions."""
        counts = [job.counts for job in self.jobs()]
        return sum(count.total for count in counts), sum(count.succeeded for count in counts)


def _queue(s3: S3, bucket: str) -> str:
    sqs, client = s3.client("sqs"), s3.client()
    name = f"q{uuid.uuid4().hex}"
    arn = "arn:aws:sqs:us-east-1:123456789012:"
    sqs.create_queue(QueueName=f"{name}-dead")
    policy = json.dumps({"deadLetterTargetArn": f"{arn}{name}-dead", "maxReceiveCount": 20})
    attributes = {"VisibilityTimeout": str(VISIBILITY_S), "RedrivePolicy": policy}
    url: str = sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
    wanted = {"QueueConfigurations": [{"QueueArn": f"{arn}{name}", "Events": ["s3:ObjectCreated:*"]}]}
    client.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration=wanted)
    for each in (sqs, client):
        each.close()
    return url


@pytest.fixture
def bucket(redis_server: Redis, postgres: Postgres, postgres_url: str, moto_service: S3) -> Iterator[Bucket]:
    with run_cluster(redis_server, postgres, postgres_url, moto_service, {}) as cluster:
        name = moto_service.new_bucket()
        store = cluster.services.store
        store.keys.grant(OWNER, f"s3://{name}/photos/")
        store.rules.add(OWNER, name, "photos/", JobSpec(options=CaptionOptions(use_cache=False)))
        yield Bucket(cluster, moto_service, name, _queue(moto_service, name))


def assert_each_once(bucket: Bucket, count: int) -> None:
    """Every photo that was put has its caption, in one item of one job; no other item is there."""
    items = [item for item in bucket.items() if item.name != "gone.png"]
    sources = Counter(item.source for item in items)
    assert sources == Counter(f"s3://{bucket.name}/photos/{number}.png" for number in range(count))
    wrong = [item for item in items if item.caption != f"picture {item.name.removesuffix('.png')}"]
    assert not wrong, wrong[:3]
    assert {job.source for job in bucket.jobs()} == {"bucket_event"}


def _empty(bucket: Bucket) -> Any:
    client = bucket.s3.client("sqs")
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]

    def empty() -> bool:
        for url in (bucket.queue, f"{bucket.queue}-dead"):
            found = client.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
            if any(int(number) for number in found.values()):
                return False
        return True

    return empty


@pytest.mark.parametrize(
    ("count", "deaths"), [(60, 1), pytest.param(500, 3, marks=[pytest.mark.soak, pytest.mark.timeout(900)])]
)
def test_photos_that_are_put_are_captioned_once_whoever_is_killed(
    bucket: Bucket, count: int, deaths: int, tmp_path: Path
) -> None:
    bucket.cluster.worker(wait=False)
    share = count // (deaths + 1)
    bucket.put_and_remove("gone.png")
    bucket.put(0, share)
    bucket.die_before_deleting(tmp_path / "committed")
    for death in range(1, deaths):
        bucket.put(death * share, (death + 1) * share)
        bucket.die_anywhere()
    survivors = [bucket.process("-m", "cli.main", "events") for _ in range(2)]
    bucket.put(deaths * share, count)
    wait_until(lambda: bucket.counted() == (count + 1, count), 240, "all captions")
    # What the dead had received comes again, and changes nothing.
    wait_until(_empty(bucket), 60, "empty queues")
    assert_each_once(bucket, count)
    (gone,) = (item for item in bucket.items() if item.name == "gone.png")
    assert gone.error.code == "object_not_found"
    for survivor in survivors:
        assert survivor.stop(timeout=40) == 0, survivor.output
        assert "Traceback" not in survivor.output
    seen = re.findall(r"(\d+) events under \S+, (\d+) new", "".join(each.output for each in survivors))
    assert sum(int(events) for events, _ in seen) > sum(int(new) for _, new in seen), "nothing came again"


def test_a_consumer_goes_on_when_database_and_broker_come_back(bucket: Bucket) -> None:
    cluster = bucket.cluster
    consumer = bucket.process("-m", "cli.main", "events")
    wait_until(lambda: "taking bucket events" in consumer.output or not consumer.alive, 60)
    cluster.redis.kill()
    cluster.postgres.stop()
    bucket.put(0, 5)
    wait_until(lambda: "bucket events wait" in consumer.output, 60, "the consumer's complaint")
    cluster.postgres.start()
    wait_until(lambda: bucket.counted()[0] == 5, 60, "jobs without a broker")
    cluster.redis.start()
    assert consumer.stop(timeout=40) == 0, consumer.output
    assert len(bucket.items()) == 5
