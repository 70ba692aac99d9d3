"""Jobs beside other jobs: one image behind a running bulk job, and a job whose images are all known.

``python -m benchmarks.latency FOLDER`` takes photos from a folder; ``--bulk`` says how long the bulk job is.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from benchmarks.faults import Fleet, running_fleet
from benchmarks.figures import Figure, Setting, line
from benchmarks.machine import describe_machine
from tests.processes import wait_until

BULK = 100_000
SINGLES = 40
REPEATED = 400
BUCKET = "photos"
LIMIT_S = 300.0


def _store_photos(fleet: Fleet, files: list[Path]) -> None:
    import boto3

    client = boto3.client(
        "s3",
        endpoint_url=fleet.environment["AWS_ENDPOINT_URL_S3"],
        region_name=fleet.environment["AWS_REGION"],
        aws_access_key_id=fleet.environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=fleet.environment["AWS_SECRET_ACCESS_KEY"],
    )
    client.create_bucket(Bucket=BUCKET)
    for number, path in enumerate(files):
        client.put_object(Bucket=BUCKET, Key=f"{number}.jpg", Body=path.read_bytes())
    client.close()
    fleet.command("keys", "grant", "bench", f"s3://{BUCKET}/")


def _submit(fleet: Fleet, images: int, photos: int, **options: str) -> str:
    """Make a job of ``images`` images, those in the bucket again and again; return its id."""
    lines = (json.dumps({"s3_uri": f"s3://{BUCKET}/{number % photos}.jpg"}) for number in range(images))
    answer = httpx.post(
        f"{fleet.url}/v1/jobs",
        params=options,
        content="\n".join(lines).encode(),
        headers={"Authorization": f"Bearer {fleet.key}", "Content-Type": "application/x-ndjson"},
        timeout=60,
    ).raise_for_status()
    return str(answer.json()["id"])


def _final(fleet: Fleet, job_id: str) -> dict[str, Any]:
    wait_until(lambda: fleet.job(job_id)["status"] == "completed", LIMIT_S, "the job's end")
    return fleet.job(job_id)


def behind(fleet: Fleet, files: list[Path], bulk: int) -> Iterator[Figure]:
    """Send one photo after the other while a bulk job that looks up no caption keeps the worker busy."""
    job_id = _submit(fleet, bulk, len(files), use_cache="false")
    wait_until(lambda: fleet.job(job_id)["counts"]["succeeded"], LIMIT_S, "the bulk job's first captions")
    took = []
    headers = {"Authorization": f"Bearer {fleet.key}"}
    with httpx.Client(base_url=fleet.url, headers=headers, timeout=60) as client:
        for path in itertools.islice(itertools.cycle(files), SINGLES):
            began = time.perf_counter()
            parts = {
                "options": (None, b'{"use_cache": false}', "application/json"),
                "image": (path.name, path.read_bytes(), "image/jpeg"),
            }
            answer = client.post("/v1/captions", files=parts).raise_for_status()
            if answer.status_code == 202:
                _final(fleet, answer.json()["id"])
            took.append(time.perf_counter() - began)
        assert fleet.job(job_id)["status"] == "running", "the bulk job was over too early"
        client.post(f"/v1/jobs/{job_id}/cancel").raise_for_status()
    note = f"{SINGLES} one after the other; median {statistics.median(took):.2f} s"
    name = f"one image behind a job of {bulk:,}: time to caption, p95"
    yield Figure(name, statistics.quantiles(took, n=20)[-1], "s", "<= 2", note)


def repeated(fleet: Fleet, files: list[Path]) -> Iterator[Figure]:
    """Caption distinct photos twice: the second time every caption is known."""
    rates = []
    for _ in range(2):
        job = _final(fleet, _submit(fleet, len(files), len(files)))
        seconds = _time(job["finished_at"]) - _time(job["started_at"])
        rates.append(len(files) / seconds)
    note = f"{rates[0]:.0f} images/s where all are new"
    yield Figure("job of repeated images: fetch and digest only", rates[1], "images/s", note=note)


def _time(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def measure(files: list[Path], bulk: int = BULK) -> Iterator[Figure]:
    """Yield all figures, with one worker on all cores."""
    with running_fleet(1) as fleet:
        _store_photos(fleet, files)
        yield from repeated(fleet, files)
        yield from behind(fleet, files, bulk)


def figures(setting: Setting) -> Iterator[Figure]:
    """Yield the figures."""
    return measure(setting.files(min(setting.images, REPEATED)))


def main() -> None:
    """Read the command line and report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.latency", description=__doc__)
    parser.add_argument("folder", type=Path, help="photos to caption")
    parser.add_argument("--photos", type=int, default=REPEATED, help="how many of them")
    parser.add_argument("--bulk", type=int, default=BULK, help="images of the bulk job")
    arguments = parser.parse_args()
    print(describe_machine())
    for figure in measure(sorted(arguments.folder.iterdir())[: arguments.photos], arguments.bulk):
        print(line(figure), flush=True)


if __name__ == "__main__":
    main()
