"""A Hugging Face checkpoint through the real command: a Celery worker process on real servers."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.errors import RequestError
from jobs.ids import new_id
from jobs.objects import image_key
from jobs.records import CaptionOptions, JobSpec
from jobs.store.submit import NewItem, NewJob
from tests.checkpoints import make_checkpoint
from tests.clusters import OWNER, ROOT, Cluster, run_cluster
from tests.processes import Process, wait_until
from tests.servers import S3, Postgres, Redis

PHOTOS = sorted((ROOT / "examples/photos").glob("*.jpg"))[:5]


@pytest.fixture
def cluster(
    redis_server: Redis, postgres: Postgres, postgres_url: str, s3: S3, tmp_path: Path
) -> Iterator[Cluster]:
    folder = make_checkpoint("vit-gpt2", tmp_path / "vit-gpt2")
    models = {"CAPTIONFLEET_MODELS": f"small,hf:{folder}", "CAPTIONFLEET_THREADS": "1"}
    with run_cluster(redis_server, postgres, postgres_url, s3, models) as running:
        yield running


def _start(cluster: Cluster, model: str) -> Process:
    command = [str(Path(sys.executable).with_name("captionfleet")), "worker", "--model", model]
    worker = Process(command, environment=cluster.environment, folder=ROOT)
    cluster.workers.append(worker)
    worker.start()
    wait_until(cluster.alive, 120, "the worker's row")
    return worker


def _submit(cluster: Cluster, images: list[bytes], options: CaptionOptions) -> str:
    spec = JobSpec(options=options)
    model = cluster.services.intake.check(spec)
    job = NewJob(new_id("job"), OWNER, model, "upload", spec)
    keys = [image_key(job.id, position) for position in range(len(images))]
    with cluster.services.objects.batch() as batch:
        for key, data in zip(keys, images, strict=True):
            writer = batch.open(key, "image/jpeg")
            writer.write(data)
            writer.close()
        batch.flush()
    items = [NewItem(f"{n}.jpg", f"{n}.jpg", "upload", object_key=key) for n, key in enumerate(keys)]
    cluster.services.intake.submit(job, items)
    return job.id


def test_a_worker_captions_with_a_hugging_face_checkpoint(cluster: Cluster) -> None:
    name = cluster.services.settings.model_names[1]
    assert name == "vit-gpt2"
    _start(cluster, cluster.services.settings.model_path(name))
    options = CaptionOptions(model=name, num_beams=3, num_captions=2, min_length=3, max_length=6)
    images = [path.read_bytes() for path in PHOTOS]
    images[2] = images[2][:900]
    job_id = _submit(cluster, images, options)
    cluster.finish(job_id, 90)
    items = cluster.items(job_id)
    assert [item.status for item in items] == ["succeeded"] * 2 + ["failed"] + ["succeeded"] * 2
    assert items[2].error.code == "image_corrupt"
    for item in items[:2] + items[3:]:
        assert 1 <= len(item.caption.split()) <= 6
        assert item.model.startswith("vit-gpt2@")
        assert item.score is not None
        assert item.score < 0
        assert len(item.alternatives) <= 2
    with pytest.raises(RequestError, match=r"prompt is nothing the model 'vit-gpt2' takes"):
        cluster.services.intake.check(JobSpec(options=options.model_copy(update={"prompt": "a photo of"})))
