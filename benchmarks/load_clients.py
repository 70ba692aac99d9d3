"""Mixed clients of one service, for locust: ``benchmarks.load`` starts them and says where everything is.

Answers' contents are looked at, so that what locust counts as a success is one. ``benchmarks.load`` sets
``LOAD_KEYS``, ``LOAD_PHOTOS`` and ``LOAD_STATS``.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import time
from pathlib import Path
from typing import Any, ClassVar

from locust import HttpUser, between, events, task

PHOTOS = [path.read_bytes() for path in sorted(Path(os.environ["LOAD_PHOTOS"]).iterdir())]
KEYS = itertools.cycle(os.environ["LOAD_KEYS"].split(","))
FINAL_S = 180.0
FORMATS = ("jsonl", "csv", "txt.zip", "parquet")
PERCENTILES = (0.5, 0.95, 0.99)
# Of the jobs of some dozen photos. All other images go through the model: there are few different ones, and
# with the cache the clients would soon ask for nothing new.
CACHE_SHARE = 0.25
JPEG = "image/jpeg"


class Client(HttpUser):
    """What all kinds of clients do; jobs are deleted at the end, as a careful client does."""

    abstract = True
    wait_time = between(0.2, 1.0)

    def on_start(self) -> None:
        """Take a key: the clients are of several owners."""
        self.client.headers["Authorization"] = f"Bearer {next(KEYS)}"

    def call(self, method: str, path: str, name: str, *, expected: int = 200, **options: Any) -> Any:
        """Send a request, counted under its route; another status than expected is a failure."""
        with self.client.request(method, path, name=name, catch_response=True, **options) as answer:
            if answer.status_code != expected:
                answer.failure(f"{answer.status_code} {answer.text[:200]}")
                raise Unexpected(f"{method} {path}: {answer.status_code}")
            return answer

    def upload(self, images: int, *, use_cache: bool = False) -> str:
        """Send distinct photos as one multipart job; return its id."""
        job = {"options": {"use_cache": use_cache}}
        parts: list[tuple[str, Any]] = [("job", (None, json.dumps(job), "application/json"))]
        chosen = random.sample(range(len(PHOTOS)), images)
        parts += [("images", (f"{n}.jpg", PHOTOS[n], JPEG)) for n in chosen]
        return str(
            self.call("POST", "/v1/jobs", "POST /v1/jobs (multipart)", expected=202, files=parts).json()["id"]
        )

    def finish(self, job_id: str) -> None:
        """Long-poll until the job is final; whatever is not captioned is a failure."""
        until = time.monotonic() + FINAL_S
        path = f"/v1/jobs/{job_id}"
        while time.monotonic() < until:
            answer = self.call("GET", f"{path}?wait=10", "GET /v1/jobs/{job_id}?wait=10 (long poll)")
            job = answer.json()
            if job["status"] == "completed":
                self.check(job)
                return
            # Where every waiting place is taken, the answer comes at once.
            time.sleep(float(answer.headers["Retry-After"]))
        raise Unexpected(f"{job_id} is not final after {FINAL_S:g} s")

    def check(self, job: dict[str, Any]) -> None:
        """Raise unless every image has a caption."""
        if job["counts"]["succeeded"] != job["counts"]["total"]:
            raise Unexpected(f"{job['id']}: {job['counts']}")

    def delete(self, job_id: str) -> None:
        """Remove a job with its images."""
        self.call("DELETE", f"/v1/jobs/{job_id}", "DELETE /v1/jobs/{job_id}", expected=202)


class Unexpected(Exception):
    """An answer that no client should get."""


class Bulk(Client):
    """Uploads some dozen photos, long-polls, downloads the results in each format."""

    weight = 4

    @task
    def job(self) -> None:
        """One job from upload to deletion."""
        job_id = self.upload(random.choice((5, 20, 60)), use_cache=random.random() < CACHE_SHARE)
        self.finish(job_id)
        for form in FORMATS:
            path = f"/v1/jobs/{job_id}/results?format={form}"
            self.call("GET", path, f"GET /v1/jobs/{{job_id}}/results?format={form}")
        self.delete(job_id)


class Single(Client):
    """Sends one photo at a time and waits for its caption."""

    weight = 3

    @task
    def caption(self) -> None:
        """One photo."""
        parts = {
            "options": (None, json.dumps({"use_cache": False}), "application/json"),
            "image": ("photo.jpg", random.choice(PHOTOS), JPEG),
        }
        with self.client.post(
            "/v1/captions", files=parts, name="POST /v1/captions", catch_response=True
        ) as answer:
            if answer.status_code not in (200, 202) or not answer.json():
                answer.failure(f"{answer.status_code} {answer.text[:200]}")
            elif answer.status_code == 202:
                answer.success()


class Poller(Client):
    """Polls one job and lists all of them, as dashboards do."""

    weight = 3
    job_id = ""

    @task(6)
    def poll(self) -> None:
        """Ask for a job's status with the version known."""
        if not self.job_id:
            self.job_id, self.etag = self.upload(3), ""
        name = "GET /v1/jobs/{job_id} (poll)"
        path, headers = f"/v1/jobs/{self.job_id}", {"If-None-Match": self.etag}
        with self.client.get(path, name=name, headers=headers, catch_response=True) as answer:
            if answer.status_code not in (200, 304):
                answer.failure(f"{answer.status_code} {answer.text[:200]}")
                return
            answer.success()
            self.etag = answer.headers["ETag"]

    @task(2)
    def listing(self) -> None:
        """Ask what there is."""
        self.call("GET", "/v1/jobs?limit=20", "GET /v1/jobs")
        self.call("GET", "/v1/limits", "GET /v1/limits")
        self.call("GET", "/v1/models", "GET /v1/models")


class Follower(Client):
    """Follows jobs by server-sent events."""

    weight = 2

    @task
    def follow(self) -> None:
        """One job, from upload to its last event."""
        job_id = self.upload(20)
        status, until = "", time.monotonic() + FINAL_S
        while status != "completed" and time.monotonic() < until:
            status = self._read(job_id)
            if status != "completed":
                time.sleep(1.0)
        if status != "completed":
            raise Unexpected(f"{job_id} is {status} after {FINAL_S:g} s")
        self.delete(job_id)

    def _read(self, job_id: str) -> str:
        """Read a stream to its end; return the last status it said."""
        path, name = f"/v1/jobs/{job_id}/events", "GET /v1/jobs/{job_id}/events (to its head)"
        status = ""
        with self.client.get(path, name=name, stream=True, catch_response=True) as answer:
            if answer.status_code != 200:
                answer.failure(f"{answer.status_code}")
                return status
            answer.success()
            for line in answer.iter_lines():
                if line.startswith(b"data: "):
                    status = json.loads(line[6:])["status"]
        return status


class Direct(Client):
    """Sends photos to the object store by presigned addresses, then makes a job of them."""

    weight = 2

    @task
    def direct(self) -> None:
        """One job of five photos."""
        chosen = random.sample(PHOTOS, 5)
        files = [
            {"name": f"{n}.jpg", "content_type": JPEG, "size": len(data)} for n, data in enumerate(chosen)
        ]
        answer = self.call("POST", "/v1/uploads", "POST /v1/uploads", expected=201, json={"files": files})
        targets = answer.json()["data"]
        for target, data in zip(targets, chosen, strict=True):
            headers = {**target["headers"], "Authorization": None}
            self.call("PUT", target["url"], "PUT (to the object store)", data=data, headers=headers)
        images = [{"upload_id": target["id"]} for target in targets]
        job = {"images": images, "options": {"use_cache": False}}
        made = self.call("POST", "/v1/jobs", "POST /v1/jobs (JSON)", expected=202, json=job)
        job_id = made.json()["id"]
        self.finish(job_id)
        self.delete(job_id)


class Reader(Client):
    """Searches, sorts and edits captions, and looks at images."""

    weight = 3
    job_id = ""
    WORDS: ClassVar = ("dog", "man", "water", "red", "no such word")

    @task(3)
    def read(self) -> None:
        """Ask for items in every way."""
        items = f"/v1/jobs/{self._job()}/items"
        name = "GET /v1/jobs/{job_id}/items"
        self.call("GET", f"{items}?q={random.choice(self.WORDS)}", f"{name}?q=")
        self.call("GET", f"{items}?sort=score&limit=10", f"{name}?sort=score")
        self.call("GET", f"{items}?limit=10", name)

    @task(1)
    def edit(self) -> None:
        """Change a caption, and see that it is changed."""
        path, name = (
            f"/v1/jobs/{self._job()}/items/{random.randrange(20)}",
            "/v1/jobs/{job_id}/items/{position}",
        )
        text = f"edited {random.random()}"
        self.call("PATCH", path, f"PATCH {name}", json={"caption": text})
        item = self.call("GET", path, f"GET {name}").json()
        # Clients of one job edit it one after the other.
        if item["edited_caption"] != text:
            raise Unexpected(f"{path}: {item['edited_caption']!r} is not {text!r}")

    @task(1)
    def look(self) -> None:
        """Get an image, by the redirect to the object store."""
        path = f"/v1/jobs/{self._job()}/items/{random.randrange(20)}/image"
        answer = self.call("GET", path, "GET /v1/jobs/{job_id}/items/{position}/image")
        if not answer.content.startswith(b"\xff\xd8"):
            raise Unexpected(f"{path} is no JPEG")

    def _job(self) -> str:
        if not self.job_id:
            self.job_id = self.upload(20)
            self.finish(self.job_id)
        return self.job_id


def write_stats(environment: Any, **_: Any) -> None:
    """Write what was counted for ``benchmarks.load``."""
    routes = [
        {
            "route": entry.name,
            "requests": entry.num_requests,
            "failures": entry.num_failures,
            "max_ms": entry.max_response_time,
            **{f"p{share * 100:g}_ms": entry.get_response_time_percentile(share) for share in PERCENTILES},
        }
        for entry in environment.stats.entries.values()
    ]
    errors = [f"{error.method} {error.name}: {error.error}" for error in environment.stats.errors.values()]
    errors += [f"{found['msg']} ({found['count']} times)" for found in environment.runner.exceptions.values()]
    stats = {"routes": sorted(routes, key=lambda route: str(route["route"])), "errors": errors}
    Path(os.environ["LOAD_STATS"]).write_text(json.dumps(stats))


events.quitting.add_listener(write_stats)  # type: ignore[no-untyped-call]
