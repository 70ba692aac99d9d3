"""`captionfleet doctor` and `models`: what they find, in good state and in bad."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cli import doctor
from jobs.objects import s3 as objects
from jobs.objects.s3_rules import Lifecycle, read_lifecycle
from jobs.settings import Settings
from jobs.store import Store
from jobs.store.database import open_database
from jobs.store.schema import HEAD
from jobs.tables import ChunkRow
from model.loading import WEIGHTS
from tests.contract.stores import change_chunks, new_job
from tests.unit.cli.conftest import Run

if TYPE_CHECKING:
    from tests.servers import S3, Redis


def _states(output: str) -> dict[str, str]:
    return {finding["what"]: finding["state"] for finding in json.loads(output)}


def test_an_empty_folder_is_well(run: Run, tmp_path: Path) -> None:
    ran = run("doctor")
    assert ran.status == 0, ran.output
    assert ran.output.endswith("\nAll is well.\n")
    assert "ok      model small: small-" in ran.output
    assert list(tmp_path.iterdir()) == []


def test_after_a_migration(run: Run, tmp_path: Path) -> None:
    assert run("migrate").status == 0
    found = json.loads(run("doctor", "--json").output)
    assert {"what": "database", "state": "ok", "detail": f"SQLite, schema {HEAD}", "mend": ""} in found


def test_distributed_mode(run: Run, postgres_url: str, redis_server: Redis, s3: S3) -> None:
    settings = s3.environment | {
        "DATABASE_URL": postgres_url,
        "REDIS_URL": redis_server.url,
        "CAPTIONFLEET_BUCKET": s3.bucket,
    }
    ran = run("doctor", "--json", **settings)
    assert ran.status == 1
    assert _states(ran.output)["database"] == "broken"
    assert "captionfleet migrate" in ran.output

    assert run("migrate", **settings).status == 0
    ran = run("doctor", "--json", **settings)
    states = _states(ran.output)
    assert ran.status == 0, ran.output
    assert {states[what] for what in ("settings", "database", "broker", "bucket")} == {"ok"}
    assert {states[what] for what in ("API keys", "workers of small", "sweep")} == {"note"}
    assert {states[what] for what in ("jobs", "S3")} == {"ok"}

    redis_server.kill()
    ran = run("doctor", "--json", **settings | {"CAPTIONFLEET_BUCKET": "no-such-bucket"})
    states = _states(ran.output)
    assert ran.status == 1
    assert [what for what, state in states.items() if state == "broken"] == ["broker", "bucket"]


def _rule(days: int | None, prefix: str = "", **more: Any) -> dict[str, Any]:
    expires = {} if days is None else {"Expiration": {"Days": days}}
    return {"ID": f"{days}{prefix}", "Status": "Enabled", "Filter": {"Prefix": prefix}, **expires, **more}


ABORT = {"AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1}}


@pytest.mark.parametrize(
    ("rules", "days"),
    [
        ([], None),
        ([_rule(3, "other/"), _rule(4, Status="Disabled"), _rule(None, **ABORT)], None),
        ([_rule(60), _rule(5, "jobs/job_1")], 5),
        ([_rule(None, Transitions=[{"Days": 2, "StorageClass": "GLACIER"}])], 2),
        ([_rule(None, Transitions=[{"Days": 2, "StorageClass": "STANDARD_IA"}])], None),
        ([_rule(1, Filter={"And": {"Prefix": "", "Tags": [{"Key": "a", "Value": "b"}]}})], None),
    ],
)
def test_rules_that_remove_objects_are_found(
    moto_service: S3, monkeypatch: pytest.MonkeyPatch, rules: list[dict[str, Any]], days: int | None
) -> None:
    for name, value in moto_service.environment.items():
        monkeypatch.setenv(name, value)
    bucket = moto_service.new_bucket()
    client = moto_service.client()
    if rules:
        client.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": rules})
    client.close()
    found = read_lifecycle(objects.S3(), bucket, ("jobs/", "uploads/"))
    assert found == Lifecycle(days, aborts_uploads=any("AbortIncompleteMultipartUpload" in r for r in rules))


def test_buckets_whose_rules_do_harm_are_named(
    run: Run, postgres_url: str, redis_server: Redis, moto_service: S3
) -> None:
    own, results = moto_service.new_bucket(), moto_service.new_bucket()
    client = moto_service.client()
    short = {"Rules": [_rule(3)]}
    client.put_bucket_lifecycle_configuration(Bucket=own, LifecycleConfiguration=short)
    client.close()
    settings = moto_service.environment | {
        "DATABASE_URL": postgres_url,
        "REDIS_URL": redis_server.url,
        "CAPTIONFLEET_BUCKET": own,
    }
    assert run("migrate", **settings).status == 0
    assert run("keys", "grant", "--write", "ann", f"s3://{results}/out/", **settings).status == 0
    ran = run("doctor", "--json", **settings)
    assert ran.status == 0, ran.output
    found = {finding["what"]: finding for finding in json.loads(ran.output)}
    assert (found["bucket"]["state"], "after 3 days" in found["bucket"]["detail"]) == ("note", True)
    assert found[f"results in {results}"]["state"] == "note"


def test_s3_without_credentials(run: Run) -> None:
    lost = {
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_SHARED_CREDENTIALS_FILE": "/no",
        "AWS_CONFIG_FILE": "/no",
    }
    assert run("migrate").status == 0
    assert _states(run("doctor", "--json", **lost).output)["S3"] == "ok"
    assert run("keys", "grant", "local", "s3://photos/").status == 0
    ran = run("doctor", **lost)
    assert ran.status == 1
    assert "BROKEN  S3: nothing can be read: there are no AWS credentials" in ran.output
    known = {"AWS_ACCESS_KEY_ID": "me", "AWS_SECRET_ACCESS_KEY": "it"}
    assert _states(run("doctor", "--json", **lost, **known).output)["S3"] == "ok"


def test_what_is_stuck_is_shown_and_set_going(run: Run, tmp_path: Path) -> None:
    assert run("migrate").status == 0
    assert run("stuck").complaints == "Nothing is stuck.\n"
    database = open_database(Settings(data_dir=tmp_path / "data"), exclusive=False)
    store = Store(database, retention_days=1)
    job_id = new_job(store, 100)
    change_chunks(
        store, job_id, ChunkRow.number == 1, failures=5, not_before=datetime(2099, 1, 1, tzinfo=UTC)
    )
    assert _states(run("doctor", "--json").output)["jobs"] == "broken"
    shown = run("stuck")
    assert shown.status == 1
    assert shown.output.startswith(f"{job_id}\tann\tsmall\t1\tfailed 5 times")
    assert run("redrive", job_id).complaints == f"{job_id} goes on: 4 chunks wait for a worker.\n"
    assert json.loads(run("stuck", "--json").output) == []
    assert run("redrive", "job_0").error == "there is no job job_0"
    store.close()


@pytest.mark.parametrize(
    ("settings", "what", "words"),
    [
        ({"CAPTIONFLEET_PORT": "x"}, "settings", "CAPTIONFLEET_PORT"),
        ({"CAPTIONFLEET_DATA_DIR": "file"}, "data folder", "file is a file"),
        ({"CAPTIONFLEET_MODELS": "mine=nowhere"}, "model mine", "no model 'nowhere'"),
        ({"CAPTIONFLEET_MODELS": "mine=damaged"}, "model mine", "decoder.bin is damaged"),
        ({"CAPTIONFLEET_DEVICE": "cuda:7"}, "model small", "cuda:7"),
    ],
)
def test_what_is_broken(run: Run, tmp_path: Path, settings: dict[str, str], what: str, words: str) -> None:
    (tmp_path / "file").write_text("")
    shutil.copytree(WEIGHTS / "small", tmp_path / "damaged")
    with (tmp_path / "damaged" / "decoder.bin").open("r+b") as file:
        file.write(b"damage")
    ran = run("doctor", **settings)
    assert ran.status == 1
    (line,) = [line for line in ran.output.splitlines() if line.startswith("BROKEN")]
    assert line.startswith(f"BROKEN  {what}: ")
    assert words in line
    assert ran.output.endswith("\n1 broken\n")


def test_a_full_disk(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LOW_DISK_BYTES", 1 << 60)
    ran = run("doctor")
    assert ran.status == 1
    assert "BROKEN  disk: " in ran.output


def test_models(run: Run) -> None:
    settings = {"CAPTIONFLEET_MODELS": "small,mine=no/such"}
    small, mine = json.loads(run("models", "--json", **settings).output)
    assert small["version"].startswith("small-")
    assert 5 < small["size_mb"] <= 40
    assert "Apache" in small["licence"]["encoder"]
    assert (mine["name"], mine["path"], mine["version"]) == ("mine", "no/such", None)
    lines = run("models", **settings).output.splitlines()
    assert [line for line in lines if not line.startswith(" ")] == ["small (default)", "mine"]
    assert "  path     no/such" in lines
