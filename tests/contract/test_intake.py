"""What no job may ask, and which S3 objects an owner may name."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from jobs.errors import RequestError
from jobs.ids import new_id
from jobs.intake import Intake
from jobs.objects.folder import FolderObjects
from jobs.queue.embedded import EmbeddedQueue
from jobs.records import CaptionOptions, ImageReference, JobSpec
from jobs.settings import Settings
from jobs.store import Store
from jobs.store.submit import NewItem, NewJob
from jobs.store.workers import Worker
from tests.contract.stores import store

__all__ = ["store"]


@pytest.fixture
def queue() -> EmbeddedQueue:
    return EmbeddedQueue()


@pytest.fixture
def intake(store: Store, queue: EmbeddedQueue, tmp_path: Path) -> Intake:
    settings = Settings(models=("small", "large"), max_images=3, bucket="own-uploads")
    return Intake(settings, store, queue, FolderObjects(tmp_path / "objects"), lambda: None)


def items(count: int) -> list[NewItem]:
    return [NewItem(f"{n}.jpg", f"{n}.jpg", "upload", f"k/{n}") for n in range(count)]


def refuse(code: str, spec: JobSpec, intake: Intake) -> None:
    with pytest.raises(RequestError) as refusal:
        intake.check(spec)
    assert refusal.value.code == code


def test_the_first_model_is_the_default_and_only_listed_ones_may_be_named(intake: Intake) -> None:
    assert intake.check(JobSpec()) == "small"
    assert intake.check(JobSpec(options=CaptionOptions(model="large"))) == "large"
    for name in ("huge", "../../etc", "hf:org/model"):
        refuse("model_not_available", JobSpec(options=CaptionOptions(model=name)), intake)


def test_a_prompt_is_refused_where_workers_say_that_their_model_takes_none(
    intake: Intake, store: Store
) -> None:
    asking = JobSpec(options=CaptionOptions(prompt="a photo of"))
    assert intake.check(asking) == "small", "nobody knows yet"
    workers = store.workers
    workers.see(Worker("other", "large", "1", "", "cpu", None, takes_prompt=True))
    workers.see(Worker("one", "small", "1", "", "cpu", None))
    refuse("invalid_request", asking, intake)
    workers.see(Worker("new", "small", "2", "", "cpu", None, takes_prompt=True))
    assert intake.check(asking) == "small"
    assert {worker.id: worker.takes_prompt for worker in workers.alive()} == {
        "other": True,
        "one": False,
        "new": True,
    }


@pytest.mark.parametrize(
    "model", ["hf:Salesforce/blip-image-captioning-base", "hf:/etc", "/etc", "mine=hf:/x"]
)
def test_no_request_names_a_checkpoint(intake: Intake, model: str) -> None:
    refuse("model_not_available", JobSpec(options=CaptionOptions(model=model)), intake)


@pytest.mark.parametrize(
    "options",
    [
        CaptionOptions(top_p=0.9, num_beams=3),
        CaptionOptions(temperature=0.7, num_beams=2),
        CaptionOptions(seed=1),
        CaptionOptions(num_beams=2, seed=1),
    ],
)
def test_sampling_and_searching_exclude_each_other(intake: Intake, options: CaptionOptions) -> None:
    refuse("invalid_request", JobSpec(options=options), intake)
    assert intake.check(JobSpec(options=CaptionOptions(top_p=0.9, seed=1, num_captions=3))) == "small"


def test_options_that_contradict_each_other_are_refused(intake: Intake) -> None:
    refuse("invalid_request", JobSpec(options=CaptionOptions(num_beams=1, num_captions=2)), intake)
    refuse("invalid_request", JobSpec(options=CaptionOptions(min_length=9, max_length=3)), intake)
    refuse("invalid_request", JobSpec(metadata={"note": "x" * 20_000}), intake)


def test_a_submitted_job_is_committed_and_announced(
    intake: Intake, store: Store, queue: EmbeddedQueue
) -> None:
    job_id = new_id("job")
    intake.submit(NewJob(job_id, "ann", "small", "upload", JobSpec()), items(3))
    assert store.jobs.get("ann", job_id)[0].counts.total == 3
    assert queue.depth("captionfleet.small.fast") == 1


def test_too_many_images_leave_nothing(intake: Intake, store: Store, queue: EmbeddedQueue) -> None:
    job_id = new_id("job")
    with pytest.raises(RequestError) as refusal:
        intake.submit(NewJob(job_id, "ann", "small", "upload", JobSpec()), items(4))
    assert refusal.value.code == "too_many_images"
    assert store.jobs.page("ann", None, 10, None) == ([], None)
    assert queue.depth("captionfleet.small.fast") == 0


@pytest.mark.parametrize(
    "uri",
    [
        "s3://photos/2023/a.jpg",
        "s3://photos-2/2024/a.jpg",
        "s3://photos/2024%2Fa.jpg",
        "s3://photos//2024/a.jpg",
        "s3://photos/2024",
        "s3://photos/2024\\a.jpg",
        "s3://own-uploads/jobs/x/0/0",
    ],
)
def test_s3_objects_outside_the_grants_are_forbidden(intake: Intake, store: Store, uri: str) -> None:
    store.keys.grant("ann", "s3://photos/2024/")
    store.keys.grant("ann", "s3://own-uploads/")
    store.keys.grant("bob", "s3://photos/")
    with pytest.raises(RequestError) as refusal:
        list(intake.references("ann", [ImageReference(s3_uri=uri)]))
    assert refusal.value.code == "forbidden"


@pytest.mark.parametrize(
    "uri",
    [
        "s3://photos/2024/../2023/a.jpg",
        "s3://photos/2024/./a.jpg",
        "s3://photos/2024/..",
        "s3://PHOTOS/2024/a.jpg",
        "S3://photos/2024/a.jpg",
        "s3://photos@evil/2024/a.jpg",
        "s3://photos:80/2024/a.jpg",
        "s3://photos?/2024/a.jpg",
        "s3:///2024/a.jpg",
        "s3://photos/2024/a\x00.jpg",
    ],
)
def test_what_only_looks_like_a_granted_object_is_not_read_as_one(uri: str) -> None:
    with pytest.raises(ValidationError):
        ImageReference(s3_uri=uri)


def test_granted_s3_objects_become_items(intake: Intake, store: Store) -> None:
    store.keys.grant("ann", "s3://photos/2024/")
    references = [
        ImageReference(s3_uri="s3://photos/2024/a b%20c.jpg", custom_id="first"),
        ImageReference(s3_uri="s3://photos/2024/deep/er.png"),
    ]
    made = list(intake.references("ann", references))
    assert [(i.name, i.custom_id, i.source, i.object_key) for i in made] == [
        ("a b%20c.jpg", "first", "s3://photos/2024/a b%20c.jpg", None),
        ("er.png", "er.png", "s3://photos/2024/deep/er.png", None),
    ]
