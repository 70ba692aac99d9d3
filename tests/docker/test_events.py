"""The compose stack's `events` profile: photos put into a bucket become captions, whatever is killed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.docker.stack import ROOT, Stack, docker
from tests.pictures import jpeg_bytes
from tests.processes import Process, wait_until
from tests.servers import S3

BUCKET = QUEUE = "photos"
VISIBILITY_S = 5
PHOTOS = 300

pytestmark = [pytest.mark.docker, pytest.mark.timeout(3000)]


@pytest.fixture(scope="module")
def stack(images: None) -> Iterator[Stack]:
    stack = Stack("captionfleet-test-events", "tests/docker/compose.events.yml")
    try:
        stack.up()
        stack.make_key()
        yield stack
    finally:
        stack.down()


@pytest.fixture(scope="module")
def s3(stack: Stack) -> Iterator[Any]:
    """A client for the bucket whose new objects are announced to the queue, with a rule for them."""
    server = S3(Process(["true"]), stack.s3_port)
    client, sqs = server.client(), server.client("sqs")
    client.create_bucket(Bucket=BUCKET)
    arn = f"arn:aws:sqs:us-east-1:123456789012:{QUEUE}"
    sqs.create_queue(QueueName=f"{QUEUE}-dead")
    redrive = json.dumps({"deadLetterTargetArn": f"{arn}-dead", "maxReceiveCount": 20})
    attributes = {"VisibilityTimeout": str(VISIBILITY_S), "RedrivePolicy": redrive}
    sqs.create_queue(QueueName=QUEUE, Attributes=attributes)
    wanted = {"QueueConfigurations": [{"QueueArn": arn, "Events": ["s3:ObjectCreated:*"]}]}
    client.put_bucket_notification_configuration(Bucket=BUCKET, NotificationConfiguration=wanted)
    stack.command("keys", "grant", "me", f"s3://{BUCKET}/in/")
    stack.command("rules", "add", f"s3://{BUCKET}/in/", "--owner", "me")
    yield client
    client.close()
    sqs.close()


def counted(stack: Stack) -> tuple[int, int]:
    """Images of all jobs, and those of them with captions."""
    counts = [job["counts"] for job in stack.jobs()]
    return sum(count["total"] for count in counts), sum(count["succeeded"] for count in counts)


def items(stack: Stack) -> list[dict[str, Any]]:
    """The items of all jobs."""
    return [item for job in stack.jobs() for item in stack.items(job["id"])]


def test_a_photo_is_captioned(stack: Stack, s3: Any) -> None:
    stack.up("--no-deps", "events")
    s3.put_object(Bucket=BUCKET, Key="in/a dog.jpg", Body=(ROOT / "examples/photos/dog.jpg").read_bytes())
    s3.put_object(Bucket=BUCKET, Key="in/notes.txt", Body=b"no image")
    s3.put_object(Bucket=BUCKET, Key="elsewhere/dog.jpg", Body=jpeg_bytes(0))
    wait_until(lambda: counted(stack)[1] == 1, 60, "the caption")
    (item,) = items(stack)
    assert item["source"] == f"s3://{BUCKET}/in/a dog.jpg"
    assert "dog" in item["caption"]
    (job,) = stack.jobs()
    assert job["source"] == "bucket_event"


def test_killed_containers_cost_and_double_nothing(stack: Stack, s3: Any) -> None:
    """The consumer is killed twice among the puts, database, Redis, API and worker once."""

    def put(number: int) -> None:
        s3.put_object(Bucket=BUCKET, Key=f"in/{number}.jpg", Body=jpeg_bytes(number))

    events = stack.containers("events")[0]
    with ThreadPoolExecutor(4) as pool:
        puts = [pool.submit(put, number) for number in range(PHOTOS)]
        wait_until(lambda: counted(stack)[0] > 1, 60, "the first job")
        docker("kill", events)
        stack.up("--no-deps", "events")
        wait_until(lambda: counted(stack)[1] > 1, 60, "the first captions")
        names = ("events", "postgres", "redis", "api", "worker")
        docker("kill", *(stack.containers(name)[0] for name in names))
        stack.up()
        stack.up("--no-deps", "events")
        for each in puts:
            each.result()
    wait_until(lambda: counted(stack)[1] == PHOTOS + 1, 240, "all captions")
    found = Counter(item["source"] for item in items(stack))
    del found[f"s3://{BUCKET}/in/a dog.jpg"]
    assert found == Counter(f"s3://{BUCKET}/in/{number}.jpg" for number in range(PHOTOS))


def test_the_consumer_is_well(stack: Stack, s3: Any) -> None:
    (found,) = json.loads(docker("inspect", stack.containers("events")[0]))
    assert found["State"]["Health"]["Status"] == "healthy"
    assert found["HostConfig"]["ReadonlyRootfs"] is True
