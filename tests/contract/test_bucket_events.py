"""Bucket events through the consumer, over moto's S3 and SQS: real puts, and messages of other senders."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from jobs.errors import BrokerUnavailable, DatabaseUnavailable, RequestError, StartupError
from jobs.ids import new_id
from jobs.listing import listed_item
from jobs.queue.sqs import Received, Sqs, queue_region
from jobs.records import CaptionOptions, Item, Job, JobOutput, JobSpec
from jobs.services import Services, build_services
from jobs.settings import Settings
from jobs.store.schema import upgrade
from jobs.store.submit import NewJob
from jobs.tables import BucketEventRow
from tests.contract.stores import LONG_AGO
from tests.processes import wait_until
from tests.servers import S3
from worker import bucket_events
from worker.bucket_events import EventConsumer, dead_letter_url, replay

OWNER = "ann"


@dataclass
class Events:
    """A service, a stranger's bucket of which ann may read photos/, and the queue that its events go to."""

    services: Services
    s3: S3
    bucket: str
    queue: str
    dead: str

    def __post_init__(self) -> None:
        """Make clients once: it takes longer than most of what they are asked."""
        self.objects, self.queues = self.s3.client(), self.s3.client("sqs")
        self.sqs = Sqs(self.queue)

    def consumer(self) -> EventConsumer:
        return EventConsumer(self.services, self.sqs, self.queue, self.dead)

    def put(self, *keys: str, bucket: str = "", body: bytes = b"x") -> None:
        for key in keys:
            self.objects.put_object(Bucket=bucket or self.bucket, Key=key, Body=body)

    def notify(self, bucket: str) -> None:
        """Announce a bucket's new objects to the queue; S3 sends a test event at once."""
        arn = f"arn:aws:sqs:us-east-1:123456789012:{self.queue.rpartition('/')[2]}"
        wanted = {"QueueConfigurations": [{"QueueArn": arn, "Events": ["s3:ObjectCreated:*"]}]}
        self.objects.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration=wanted)

    def send(self, *bodies: str) -> None:
        for body in bodies:
            self.queues.send_message(QueueUrl=self.queue, MessageBody=body)

    def event(self, key: str, **thing: Any) -> str:
        """Make a message about an object."""
        about = {"bucket": {"name": self.bucket}, "object": {"key": key, **thing}}
        return json.dumps({"Records": [{"eventName": "ObjectCreated:Put", "s3": about}]})

    def waiting(self, url: str = "") -> int:
        """Messages in a queue, those in somebody's hands included."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.queues.get_queue_attributes(QueueUrl=url or self.queue, AttributeNames=names)[
            "Attributes"
        ]
        return sum(int(count) for count in found.values())

    def rule(self, prefix: str = "photos/", owner: str = OWNER, **spec: Any) -> str:
        return self.services.store.rules.add(owner, self.bucket, prefix, JobSpec(**spec)).id

    def jobs(self, owner: str = OWNER) -> list[Job]:
        return self.services.store.jobs.page(owner, None, 100, None)[0]

    def items(self, owner: str = OWNER) -> list[Item]:
        store = self.services.store.jobs
        return [item for job in self.jobs(owner) for page in store.results(owner, job.id) for item in page]

    def sources(self) -> list[str]:
        return sorted(item.source.removeprefix(f"s3://{self.bucket}/") for item in self.items())


BOTH = pytest.mark.parametrize("events", ["sqlite", "postgresql"], indirect=True)


@pytest.fixture(params=["sqlite"])
def events(
    request: pytest.FixtureRequest, tmp_path: Path, moto_service: S3, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Events]:
    """A service and its queues; on both databases where the test says so."""
    s3 = moto_service
    for variable, value in s3.environment.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setattr(bucket_events, "POLL_S", 1)
    bucket = s3.new_bucket()
    if request.param == "sqlite":
        settings = Settings(data_dir=tmp_path, bucket=s3.new_bucket(), max_images=40)
    else:
        url = request.getfixturevalue("postgres_url")
        settings = Settings(
            database_url=url, redis_url="redis://localhost:1", bucket=s3.new_bucket(), max_images=40
        )
    services = build_services(settings)
    upgrade(services.store.database)
    services.store.keys.grant(OWNER, f"s3://{bucket}/photos/")
    made = Events(services, s3, bucket, *_queues(s3))
    yield made
    made.objects.close()
    made.queues.close()
    services.close()


def _queues(s3: S3) -> tuple[str, str]:
    """Make a queue and its dead-letter queue; what was received comes again after a second."""
    client = s3.client("sqs")
    name = f"q{uuid.uuid4().hex}"
    dead = client.create_queue(QueueName=f"{name}-dead")["QueueUrl"]
    arn = client.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 50})
    attributes = {"VisibilityTimeout": "1", "RedrivePolicy": policy}
    queue = client.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
    client.close()
    return queue, dead


# From a real put to a job


@BOTH
def test_objects_that_are_put_become_a_job_by_the_rule(
    events: Events, caplog: pytest.LogCaptureFixture
) -> None:
    spec = {"options": CaptionOptions(num_captions=2), "metadata": {"album": "x"}}
    rule = events.rule(**spec, webhook_url="https://example.org/hook")
    events.notify(events.bucket)
    keys = ["photos/a b+c%20é.jpg", "photos/2024/b.PNG"]
    events.put(*keys, "photos/notes.txt", "photos/folder.jpg/", "other/a.jpg", "photos/a.jpg.json")
    with caplog.at_level("INFO"):
        events.consumer().run_once()
    (job,) = events.jobs()
    assert (job.source, job.status, job.counts.total) == ("bucket_event", "queued", 2)
    assert job.options == spec["options"]
    assert job.metadata == {"album": "x", "rule": rule}
    assert job.webhook_url == "https://example.org/hook"
    assert events.sources() == sorted(keys)
    assert {item.custom_id for item in events.items()} == {"a b+c%20é.jpg", "2024/b.PNG"}
    assert "3 not named like an image, 1 other events, 1 without a rule" in caplog.text
    assert events.waiting() == events.waiting(events.dead) == 0


@BOTH
def test_the_longest_prefix_decides_whose_job_it_is(events: Events) -> None:
    events.services.store.keys.grant("bob", f"s3://{events.bucket}/photos/bob/")
    events.rule()
    events.rule("photos/bob/", owner="bob", priority="high")
    events.send(*(events.event(key) for key in ("photos/a.jpg", "photos/bob/b.jpg", "photos/bo.jpg")))
    events.consumer().run_once()
    assert events.sources() == ["photos/a.jpg", "photos/bo.jpg"]
    assert [item.name for item in events.items("bob")] == ["b.jpg"]
    with pytest.raises(RequestError, match="has a rule already"):
        events.rule(owner="bob")


def test_versions_of_one_object_are_events_of_their_own(events: Events) -> None:
    wanted = {"Status": "Enabled"}
    events.objects.put_bucket_versioning(Bucket=events.bucket, VersioningConfiguration=wanted)
    events.rule()
    events.notify(events.bucket)
    events.put("photos/a.jpg", body=b"1")
    events.put("photos/a.jpg", body=b"2")
    # moto names no versions; S3 does, here of the same bytes.
    events.send(*(events.event("photos/b.jpg", eTag="1", versionId=version) for version in "112"))
    events.consumer().run_once()
    assert events.sources() == ["photos/a.jpg"] * 2 + ["photos/b.jpg"] * 2


def test_what_the_service_writes_itself_makes_no_job(events: Events) -> None:
    own = str(events.services.settings.bucket)
    events.rule(output=JobOutput(s3_prefix=f"s3://{events.bucket}/photos/out/", sidecar="txt"))
    # Made before the bucket was the service's own.
    events.services.store.rules.add(OWNER, own, "", JobSpec())
    events.services.store.keys.grant(OWNER, f"s3://{events.bucket}/photos/", writable=True)
    for bucket in (own, events.bucket):
        events.notify(bucket)
    events.put("jobs/1/0/0", "a.jpg", bucket=own)
    events.put("photos/a.txt", "photos/a.json", "photos/out/job_1.jsonl", "photos/out/job_1.parquet")
    events.consumer().run_once()
    assert events.jobs() == []
    assert events.waiting() == events.waiting(events.dead) == 0


def test_credentials_that_are_away_for_a_moment_make_no_dead_letter(
    events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    events.rule()
    events.send(events.event("photos/a.jpg"))
    monkeypatch.setattr("boto3.Session.get_credentials", lambda _: None)
    events.consumer().run_once()
    assert (events.sources(), events.waiting(events.dead)) == (["photos/a.jpg"], 0)


def test_a_job_holds_no_more_images_than_any_other(events: Events) -> None:
    events.rule()
    records = [json.loads(events.event(f"photos/{n}.jpg"))["Records"][0] for n in range(90)]
    events.send(json.dumps({"Records": records}))
    events.consumer().run_once()
    assert sorted(job.counts.total for job in events.jobs()) == [10, 40, 40]


def test_a_key_that_leads_out_of_the_prefix_fails_alone(events: Events) -> None:
    events.rule()
    events.send(events.event("photos/../secret/a.jpg"), events.event("photos/a.jpg"))
    events.consumer().run_once()
    denied, good = sorted(events.items(), key=lambda item: item.source)
    assert (denied.error.code, good.status) == ("access_denied", "queued")


# Once


@BOTH
def test_an_event_makes_one_image_however_often_it_comes(events: Events) -> None:
    events.rule()
    body = events.event("photos/a.jpg", eTag="1", sequencer="01")
    events.send(body, body, events.event("photos/b.jpg", eTag="1"))
    events.consumer().run_once()
    events.send(body, events.event("photos/c.jpg"))
    events.consumer().run_once()
    events.send(events.event("photos/a.jpg", eTag="1", sequencer="02"))
    events.consumer().run_once()
    assert events.sources() == [f"photos/{name}.jpg" for name in "aabc"]
    assert len(events.jobs()) == 3
    events.send(body)
    events.consumer().run_once()
    assert len(events.jobs()) == 3
    assert events.waiting() == 0


def test_events_are_forgotten_when_nobody_can_repeat_them(events: Events) -> None:
    events.rule()
    events.send(events.event("photos/a.jpg"))
    events.consumer().run_once()
    taken = events.services.store.bucket_events
    assert taken.forget_old() == 0
    with events.services.store.database.write() as connection:
        connection.execute(update(BucketEventRow).values(created_at=LONG_AGO.replace(year=2020)))
    assert taken.forget_old() == 1


class Undeletable(Sqs):
    """SQS that is away whenever something is to be deleted."""

    def delete(self, url: str, messages: Any) -> None:
        raise BrokerUnavailable("away")


def test_what_could_not_be_deleted_comes_again_and_changes_nothing(events: Events) -> None:
    events.rule()
    events.send(events.event("photos/a.jpg"), "{")
    with pytest.raises(BrokerUnavailable):
        EventConsumer(events.services, Undeletable(events.queue), events.queue, events.dead).run_once()
    assert (len(events.jobs()), events.waiting()) == (1, 2)
    _until(events, lambda: events.waiting() == 0)
    assert len(events.jobs()) == 1
    assert events.waiting(events.dead) == 1


def _until(events: Events, condition: Any) -> None:
    """Consume until something is so."""

    def consumed() -> bool:
        events.consumer().run_once()
        return bool(condition())

    wait_until(consumed)


# What cannot be used


def test_unusable_messages_become_dead_letters_with_their_reason(events: Events) -> None:
    rule = events.rule()
    events.services.store.keys.ungrant(events.services.store.keys.grants(OWNER)[0])
    events.send("hello", events.event("photos/a.jpg"), events.event("other/b.jpg"))
    events.consumer().run_once()
    assert events.jobs() == []
    assert events.waiting() == 0
    letters = {letter.body: letter.reason for letter in events.sqs.receive(events.dead, 1)}
    assert str(letters.pop("hello")).startswith("not JSON")
    (reason,) = letters.values()
    assert str(reason).startswith("forbidden: ")
    assert rule in str(reason)


def test_dead_letters_are_replayed_once_they_can_be_used(events: Events) -> None:
    events.rule(options=CaptionOptions(model="small"))
    keys = events.services.store.keys
    keys.ungrant(keys.grants(OWNER)[0])
    events.send("hello", events.event("photos/a.jpg"), events.event("photos/b.jpg"))
    events.consumer().run_once()
    keys.grant(OWNER, f"s3://{events.bucket}/")
    assert dead_letter_url(events.sqs, events.queue).rpartition("/")[2] == events.dead.rpartition("/")[2]
    reasons = replay(events.sqs, events.dead, events.queue)
    assert sorted(reasons.values()) == [1, 2]
    assert events.waiting(events.dead) == 0
    events.consumer().run_once()
    assert events.sources() == ["photos/a.jpg", "photos/b.jpg"]
    assert events.waiting(events.dead) == 1  # What says nothing still says nothing.


class Scattered(Sqs):
    """A queue that answers as told, then with nothing."""

    def __init__(self, *answers: list[Received]) -> None:
        super().__init__("http://127.0.0.1:9/1/q")
        self.answers = list(answers)
        self.sent: list[str] = []

    def receive(self, url: str, wait_s: int) -> list[Received]:
        return self.answers.pop(0) if self.answers else []

    def send(self, url: str, body: str, reason: str | None = None) -> None:
        self.sent.append(body)

    def delete(self, url: str, messages: Sequence[Received]) -> None:
        assert [message.body for message in messages] == self.sent[-1:]


def test_replaying_goes_on_after_answers_without_old_letters() -> None:
    old = [Received(name, name, name, 1, None) for name in ("a", "b")]
    new = Received("new", "new", "new", 2**60, None)
    queue = Scattered([], [], old[:1], [new], [], [new, old[1]])
    assert replay(queue, "dead", "queue").total() == 2
    assert queue.sent == ["a", "b"]


def test_a_queue_without_a_dead_letter_queue_is_refused(events: Events) -> None:
    with pytest.raises(StartupError, match="CAPTIONFLEET_EVENTS_DEAD_LETTER_URL"):
        EventConsumer(events.services, events.sqs, events.dead, None).run_once()


def test_a_message_that_fails_in_a_new_way_holds_up_no_other(
    events: Events, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    events.rule()
    insert = events.services.store.submit.insert_event_job

    def fails(job: Any, items: Any) -> Any:
        if any(item.name == "bad.jpg" for item in items.values()):
            raise ZeroDivisionError
        return insert(job, items)

    monkeypatch.setattr(events.services.store.submit, "insert_event_job", fails)
    events.send(*(events.event(f"photos/{name}.jpg") for name in ("a", "bad", "b", "c")))
    events.consumer().run_once()
    assert events.sources() == [f"photos/{name}.jpg" for name in "abc"]
    assert "stays in the queue" in caplog.text
    assert events.waiting() == 1


# Dependencies that are away


def test_nothing_is_received_while_the_database_is_away(
    events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    events.send(events.event("photos/a.jpg"))

    def away(_database: Any) -> None:
        raise DatabaseUnavailable("away")

    monkeypatch.setattr(bucket_events, "reach", away)
    with pytest.raises(DatabaseUnavailable):
        events.consumer().run_once()
    (message,) = events.queues.receive_message(
        QueueUrl=events.queue, MessageSystemAttributeNames=["ApproximateReceiveCount"]
    )["Messages"]
    assert message["Attributes"]["ApproximateReceiveCount"] == "1"


def test_sqs_that_does_not_answer_is_unavailable(events: Events, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", "http://127.0.0.1:9")
    with pytest.raises(BrokerUnavailable, match="SQS does not answer"):
        Sqs(events.queue).receive(events.queue, 0)
    monkeypatch.delenv("AWS_ENDPOINT_URL_SQS")
    with pytest.raises(BrokerUnavailable, match="SQS refuses"):
        Sqs(events.queue).receive(f"{events.queue}-none", 0)


@pytest.mark.parametrize(
    ("url", "region"),
    [
        ("https://sqs.eu-central-1.amazonaws.com/123456789012/photos", "eu-central-1"),
        ("https://sqs.us-gov-west-1.amazonaws.com/123456789012/photos", "us-gov-west-1"),
        ("https://us-west-2.queue.amazonaws.com/123456789012/photos", "us-west-2"),
        ("http://127.0.0.1:5000/123456789012/photos", None),
    ],
)
def test_the_region_is_the_queues(url: str, region: str | None) -> None:
    assert queue_region(url) == region


@BOTH
def test_consumers_that_take_the_same_events_at_once_share_them(events: Events) -> None:
    names = [f"{number}.jpg" for number in range(30)]
    start = threading.Barrier(4)

    def take(number: int) -> int:
        some = names if number % 2 else names[::-1]
        items = {name.rjust(64, "0"): listed_item(events.bucket, name, name) for name in some}
        start.wait()
        job = NewJob(new_id("job"), OWNER, "small", "bucket_event", JobSpec())
        return events.services.intake.submit_events(job, items)

    with ThreadPoolExecutor(4) as pool:
        taken = list(pool.map(take, range(4)))
    assert sorted(taken) == [0, 0, 0, 30]
    assert events.sources() == sorted(names)
    assert len(events.jobs()) == 1
