"""Results that go to S3 when a job has ended: whole or not at all, replacing nothing of anybody else's."""

from __future__ import annotations

import io
import json
from typing import Any

import pyarrow.parquet as pq
import pytest
from sqlalchemy import Connection, event, select, update

from jobs import outputs
from jobs.background import PATIENCE
from jobs.errors import StorageUnavailable
from jobs.objects import s3_writes
from jobs.objects.s3 import S3
from jobs.tables import OutputRow
from tests.contract.api.support import caption
from tests.contract.stores import LONG_AGO
from tests.contract.test_sources import OWNER, Service, service
from tests.processes import wait_until

__all__ = ["service"]

# What depends on neither database nor server is tried with one of each.
ONE = pytest.mark.parametrize("service", ["sqlite-rclone"], indirect=True)

COLUMNS = {"position", "custom_id", "source", "caption", "score", "error_code", "finished_at"}


def granted(service: Service, prefix: str = "photos/", *, writable: bool = True) -> None:
    service.services.store.keys.grant(OWNER, f"s3://{service.bucket}/{prefix}", writable=writable)


def submit(service: Service, keys: list[str], **output: Any) -> Any:
    images = [{"s3_uri": f"s3://{service.bucket}/{key}"} for key in keys]
    named = {name: value.format(bucket=service.bucket) for name, value in output.items()}
    return service.submit(images=images, output=named)


def content(service: Service, key: str) -> bytes | None:
    client = service.s3.client()
    found = client.list_objects_v2(Bucket=service.bucket, Prefix=key).get("Contents", ())
    there = any(entry["Key"] == key for entry in found)
    data = client.get_object(Bucket=service.bucket, Key=key)["Body"].read() if there else None
    client.close()
    return data


def write(service: Service) -> None:
    while service.services.outputs.run_once():
        pass


def output(service: Service, job_id: str) -> Any:
    return service.http.get(f"/v1/jobs/{job_id}").json["output"]


def test_results_are_written_as_one_object_in_each_format(service: Service) -> None:
    granted(service)
    forms = {"uri": "s3://{bucket}/photos/out/all.parquet"}, {"s3_prefix": "s3://{bucket}/photos/out/"}
    parquet, jsonl = (submit(service, ["photos/a.jpg", "photos/b.jpg"], **form) for form in forms)
    table = submit(service, ["photos/a.jpg"], s3_prefix="s3://{bucket}/photos/", format="csv")
    write(service)
    assert output(service, jsonl["id"])["status"] == "waiting"
    for job in (parquet, jsonl, table):
        caption(service.services, job["id"], failing=[1])
    write(service)
    assert {output(service, job["id"])["status"] for job in (parquet, jsonl, table)} == {"done"}
    lines = content(service, f"photos/out/{jsonl['id']}.jsonl")
    assert lines == service.http.get(f"/v1/jobs/{jsonl['id']}/results").data
    rows = pq.read_table(io.BytesIO(content(service, "photos/out/all.parquet") or b"")).to_pylist()
    assert [(row["caption"], row["error_code"]) for row in rows] == [
        ("photo 0", None),
        (None, "image_corrupt"),
    ]
    assert set(rows[0]) >= COLUMNS
    assert (content(service, f"photos/{table['id']}.csv") or b"").startswith(b"position,custom_id")


def test_sidecars_stand_beside_their_images_and_replace_nothing(service: Service) -> None:
    granted(service)
    service.put("photos/taken.txt", body=b"somebody's notes")
    keys = ["photos/a b.jpg", "photos/taken.jpg", "photos/torn.jpg", "photos/a b.png", "photos/.x"]
    job = submit(service, keys, sidecar="txt")
    caption(service.services, job["id"], failing=[2])
    write(service)
    state = output(service, job["id"])
    assert (state["status"], state["written"], state["skipped"], state["failed"]) == ("done", 2, 3, 0)
    assert content(service, "photos/a b.txt") == b"photo 0\n"
    assert content(service, "photos/taken.txt") == b"somebody's notes"
    assert content(service, "photos/torn.txt") is None
    # Tried again, the job may replace what it wrote itself.
    service.http.post(f"/v1/jobs/{job['id']}/retry")
    assert output(service, job["id"])["status"] == "waiting"
    for number in range(4):
        held = service.services.store.chunks.claim(job["id"], number, "w", 30, 2)
        if held is not None:
            caption(service.services, job["id"])
            service.services.store.chunks.hand_back(held)
            caption(service.services, job["id"])
    write(service)
    state = output(service, job["id"])
    assert (state["status"], state["written"], state["skipped"]) == ("done", 3, 2)
    assert content(service, "photos/torn.txt") == b"photo 2\n"
    assert content(service, "photos/taken.txt") == b"somebody's notes"


def test_json_sidecars_are_the_items(service: Service) -> None:
    granted(service)
    job = submit(service, ["photos/a.jpg"], sidecar="json", s3_prefix="s3://{bucket}/photos/")
    caption(service.services, job["id"])
    write(service)
    sidecar = json.loads(content(service, "photos/a.json") or b"")
    assert (sidecar["caption"], sidecar["position"]) == ("photo 0", 0)
    assert content(service, f"photos/{job['id']}.jsonl") is not None


def test_a_writer_that_dies_is_followed_by_one_that_goes_on(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.store.jobs.RESULT_ROWS_AT_ONCE", 2)
    granted(service)
    job = submit(service, [f"photos/{n}.jpg" for n in range(5)], sidecar="txt")
    caption(service.services, job["id"])
    store = service.services.store.outputs
    put: Any = s3_writes.put_beside
    puts: list[str] = []

    def break_off(*arguments: Any) -> bool:
        puts.append(arguments[2])
        if len(set(puts)) > 3:
            raise StorageUnavailable("gone")
        return bool(put(*arguments))

    monkeypatch.setattr(outputs, "put_beside", break_off)
    write(service)
    assert output(service, job["id"])["written"] == 2
    dead = None
    with service.services.store.database.write() as connection:
        connection.execute(update(OutputRow).values(not_before=LONG_AGO))
    dead = store.claim("dead", 30)
    assert dead is not None
    assert dead.after == 1
    write(service)
    assert output(service, job["id"])["status"] == "waiting"
    with service.services.store.database.write() as connection:
        connection.execute(update(OutputRow).values(lease_until=LONG_AGO))
    monkeypatch.setattr(outputs, "put_beside", put)
    write(service)
    state = output(service, job["id"])
    assert (state["status"], state["written"], state["skipped"]) == ("done", 5, 0)
    assert not store.save(dead, 30)


def make_due(service: Service, **values: Any) -> None:
    with service.services.store.database.write() as connection:
        connection.execute(update(OutputRow).values(not_before=LONG_AGO, **values))


def failures(service: Service) -> int:
    with service.services.store.database.read() as connection:
        return connection.execute(select(OutputRow.failures)).scalar_one()


@ONE
def test_a_bucket_that_is_away_has_a_day(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    granted(service)
    job = submit(service, ["photos/a.jpg"], uri="s3://{bucket}/photos/all.jsonl")
    caption(service.services, job["id"])
    # Nobody listens there.
    s3 = S3()
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    writer = outputs.OutputWriter(service.services.store, s3, service.services.intake.access)
    for count in range(2):
        make_due(service)
        assert writer.run_once()
        state = output(service, job["id"])
        assert (state["status"], state["error"]["code"]) == ("waiting", "storage_unavailable")
        assert failures(service) == count + 1
        assert not writer.run_once()
    make_due(service, failures=PATIENCE)
    version = service.services.store.jobs.get(OWNER, job["id"])[1]
    assert writer.run_once()
    state = output(service, job["id"])
    assert (state["status"], state["error"]["code"]) == ("failed", "storage_unavailable")
    assert service.services.store.jobs.get(OWNER, job["id"])[1] == version + 1


@ONE
def test_an_output_and_its_jobs_version_change_together(service: Service) -> None:
    granted(service)
    job = submit(service, ["photos/a.jpg"], uri="s3://{bucket}/photos/all.jsonl")
    caption(service.services, job["id"])
    store = service.services.store
    held = store.outputs.claim("one", 30)
    assert held is not None
    commits: list[str] = []

    @event.listens_for(store.database.engine, "commit")
    def committed(_connection: Connection) -> None:
        commits.append("commit")

    store.outputs.end(held, None)
    assert len(commits) == 1
    assert not store.outputs.keep(held, 30)
    assert output(service, job["id"])["status"] == "done"


@ONE
def test_a_lease_is_kept_while_a_large_object_is_sent(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outputs, "LEASE_S", 1.2)
    granted(service)
    job = submit(service, ["photos/a.jpg"], uri="s3://{bucket}/photos/all.jsonl")
    caption(service.services, job["id"])
    store = service.services.store
    seen: set[Any] = set()

    def renewed() -> bool:
        assert store.outputs.claim("thief", 30) is None
        with store.database.read() as connection:
            seen.add(connection.execute(select(OutputRow.lease_until)).scalar_one())
        return len(seen) > 4

    put: Any = s3_writes.put_whole

    def slow(*arguments: Any) -> None:
        wait_until(renewed)
        put(*arguments)

    monkeypatch.setattr(outputs, "put_whole", slow)
    write(service)
    assert output(service, job["id"])["status"] == "done"


@ONE
def test_parquet_without_pyarrow_is_refused_and_ends_what_was_asked_before(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    granted(service)
    job = submit(service, ["photos/a.jpg"], uri="s3://{bucket}/photos/all.parquet")
    caption(service.services, job["id"])
    monkeypatch.setattr("jobs.results.find_spec", lambda _name: None)
    answer = submit(service, ["photos/a.jpg"], uri="s3://{bucket}/photos/all.parquet")
    assert (answer["code"], "pyarrow" in answer["detail"]) == ("not_acceptable", True)
    write(service)
    state = output(service, job["id"])
    assert (state["status"], state["error"]["code"]) == ("failed", "not_acceptable")


@ONE
def test_a_sidecar_whose_key_would_be_too_long_fails_alone(service: Service) -> None:
    granted(service)
    longest = "photos/" + "/".join(["x" * 200] * 5) + "/12345678.jpg"
    assert len(longest) == 1024
    job = submit(service, [longest, "photos/a.jpg"], sidecar="json")
    caption(service.services, job["id"])
    write(service)
    state = output(service, job["id"])
    assert (state["status"], state["written"], state["failed"]) == ("done", 1, 1)


def test_nothing_is_written_without_a_grant_to_write(service: Service) -> None:
    own = service.services.settings.bucket or "some-uploads"
    service.services.store.keys.grant("bob", f"s3://{service.bucket}/", writable=True)
    outside = (
        {"uri": "s3://{bucket}/photos/all.jsonl"},
        {"s3_prefix": "s3://{bucket}/photos/"},
        {"sidecar": "txt"},
    )
    for wanted in outside:
        assert submit(service, ["photos/a.jpg"], **wanted)["code"] == "forbidden", wanted
    granted(service, "photos/out/")
    service.services.store.keys.grant(OWNER, f"s3://{own}/", writable=True)
    for uri in (f"s3://{own}/x.jsonl", "s3://{bucket}/photos/out", "s3://{bucket}/photos/outer/x.csv"):
        answer = submit(service, ["photos/a.jpg"], uri=uri)
        assert answer["code"] in ("forbidden",) if own != "some-uploads" or own not in uri else True, uri
    for wanted in (
        {"uri": "s3://{bucket}/photos/out/../x.csv"},
        {"uri": "s3://{bucket}/photos/out/a.jpg"},
        {"uri": "s3://{bucket}/photos/out/a", "s3_prefix": "s3://{bucket}/photos/out/"},
        {"format": "csv"},
        {"sidecar": "md"},
        {},
    ):
        assert submit(service, ["photos/a.jpg"], **wanted)["code"] == "invalid_request", wanted
    # Beside an image that may only be read nothing is written; a grant taken back meanwhile counts.
    job = submit(service, ["photos/a.jpg"], sidecar="txt", uri="s3://{bucket}/photos/out/x.csv")
    caption(service.services, job["id"])
    granted(service, "photos/out/", writable=False)
    write(service)
    state = output(service, job["id"])
    assert (state["status"], state["error"]["code"]) == ("failed", "forbidden")
    assert content(service, "photos/out/x.csv") is None
    granted(service, "photos/out/")
    job = submit(service, ["photos/a.jpg"], sidecar="txt")
    caption(service.services, job["id"])
    write(service)
    assert (output(service, job["id"])["failed"], content(service, "photos/a.txt")) == (1, None)


def test_a_bucket_that_is_not_there_fails_the_output_alone(service: Service) -> None:
    service.services.store.keys.grant(OWNER, "s3://no-such-bucket-at-all/", writable=True)
    job = submit(service, ["photos/a.jpg"], uri="s3://no-such-bucket-at-all/x.csv")
    caption(service.services, job["id"])
    write(service)
    assert output(service, job["id"])["status"] == "failed"
    assert service.job(job["id"]).status == "completed"
