"""Client commands against a server that answers as scripted: what they say and how they end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from captionfleet_client.transports import BlockingTransport
from tests.client.conftest import Answer, Said, Script, job_json, ok, problem, scripted_server
from tests.pictures import jpeg_bytes
from tests.unit.cli.conftest import Run

MODELS = ok({"data": [{"name": "small", "default": True, "versions": [], "devices": [], "workers": 1}]})
DONE = job_json(status="completed", error=None)


@pytest.fixture
def script() -> Iterator[Script]:
    with scripted_server() as script:
        yield script


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long calls would have waited."""
    waited: list[float] = []

    async def pause(_: object, seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr(BlockingTransport, "pause", pause)
    return waited


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    path.write_bytes(jpeg_bytes(1))
    return path


def test_a_submission_is_repeated_under_its_key_and_says_so(
    run: Run, script: Script, pauses: list[float], photo: Path
) -> None:
    script.answers = [
        MODELS,
        problem(503, "database_unavailable", Retry_After="7"),
        None,
        ok(job_json()),
    ]
    ran = run("submit", photo, CAPTIONFLEET_URL=script.url, CAPTIONFLEET_API_KEY="cf_secret")
    assert (ran.status, ran.output) == (0, "job_1\n")
    assert (
        "captionfleet: it is database_unavailable (database_unavailable); trying again in 7 s\n"
        in ran.complaints
    )
    assert pauses[0] == 7
    assert [came.method for came in script.came] == ["GET", "POST", "POST", "POST"]
    sent = script.came[1:]
    assert len({came.headers["Idempotency-Key"] for came in sent}) == len({came.body for came in sent}) == 1
    assert {came.headers["Authorization"] for came in script.came} == {"Bearer cf_secret"}


@pytest.mark.parametrize("place", ["-o out.parquet", "--to s3://results/out.parquet"])
def test_a_format_that_the_server_does_not_write_is_said_before_anything_is_sent(
    run: Run, script: Script, photo: Path, place: str
) -> None:
    script.answers = [ok({"result_formats": ["jsonl", "csv"]})]
    ran = run("submit", photo, "--wait", *place.split(), CAPTIONFLEET_URL=script.url)
    assert ran.status == 1
    said = "this server writes jsonl, csv, but no parquet (it lacks pyarrow); nothing was sent"
    assert ran.error == f"{said} (not_acceptable)"
    assert [came.method for came in script.came] == ["GET"]


def test_one_image_is_one(run: Run, script: Script, photo: Path) -> None:
    counts = {**DONE["counts"], "total": 1, "succeeded": 1}
    done = job_json(status="completed", error=None, counts=counts)
    script.answers = [MODELS, ok(done), ok(done, ETag='W/"1"')]
    ran = run("submit", photo, "--wait", CAPTIONFLEET_URL=script.url)
    assert ran.status == 0, ran.complaints
    assert "captionfleet: job_1: 1 image\n" in ran.complaints
    assert "captionfleet: job_1 is completed: 1 caption, 0 failed\n" in ran.complaints


@pytest.mark.parametrize("answer", [None, problem(503, "database_unavailable", Retry_After="1")])
@pytest.mark.parametrize("command", ["retry job_1", "webhooks rotate", "webhooks redeliver whd_1"])
def test_a_turn_that_may_have_happened_is_not_repeated(
    run: Run, script: Script, pauses: list[float], command: str, answer: Answer
) -> None:
    script.answers = [answer]
    ran = run(*command.split(), CAPTIONFLEET_URL=script.url)
    assert ran.status == 1
    assert pauses == []
    assert len(script.came) == 1


def test_a_download_waits_for_a_busy_server_and_leaves_no_half_of_a_file(
    run: Run, script: Script, pauses: list[float], tmp_path: Path
) -> None:
    script.answers = [problem(429, "rate_limited", Retry_After="3"), (200, {}, b"line\n")]
    ran = run("results", "job_1", "-o", "out.jsonl", CAPTIONFLEET_URL=script.url)
    assert (ran.status, pauses, (tmp_path / "out.jsonl").read_bytes()) == (0, [3], b"line\n")
    script.answers = [(200, {"Content_Length": "9000"}, b"half\n")]
    ran = run("results", "job_1", "-o", "other.jsonl", CAPTIONFLEET_URL=script.url)
    assert ran.status == 1
    assert f"the connection to {script.url} broke (" in ran.error
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]
    script.answers = [problem(409, "job_not_finished")]
    assert (
        run("results", "job_1", CAPTIONFLEET_URL=script.url).error
        == "it is job_not_finished (job_not_finished)"
    )


@pytest.mark.parametrize("answer", [(200, {}, b"<html>"), (404, {}, b"<html>"), (404, {}, b"[]")])
def test_another_kind_of_server(run: Run, script: Script, answer: Answer) -> None:
    script.answers = [answer]
    ran = run("jobs", CAPTIONFLEET_URL=script.url)
    assert ran.status == 1
    assert f"{script.url} does not answer like a Captionfleet server" in ran.error


def test_a_key_that_is_none(run: Run, script: Script) -> None:
    ran = run("jobs", CAPTIONFLEET_URL=script.url, CAPTIONFLEET_API_KEY="cf_ключ")
    assert (ran.status, ran.error) == (2, "an API key is made of visible ASCII characters")
    assert script.came == []


def test_what_json_prints_is_what_the_server_said(run: Run, script: Script) -> None:
    script.answers = [ok({"data": [DONE], "next_cursor": None}), ok(DONE), ok(DONE)]
    assert json.loads(run("jobs", "--json", CAPTIONFLEET_URL=script.url).output) == [DONE]
    assert json.loads(run("status", "job_1", "--json", CAPTIONFLEET_URL=script.url).output) == DONE
    assert run("cancel", "job_1", CAPTIONFLEET_URL=script.url).complaints == "job_1 is completed.\n"


def test_the_end_of_a_job_that_failed(run: Run, script: Script, pauses: list[float]) -> None:
    counts = {**DONE["counts"], "total": 2}
    failed = job_json(status="failed", error={"code": "access_denied", "message": "no such bucket"})
    script.answers = [
        ok(job_json(status="preparing"), ETag='W/"1"'),
        ok(job_json(counts=counts | {"running": 1, "succeeded": 1}), ETag='W/"2"'),
        ok(failed, ETag='W/"3"'),
    ]
    ran = run("status", "job_1", "--wait", CAPTIONFLEET_URL=script.url)
    assert ran.status == 1
    assert ran.complaints == "captionfleet: job_1 is failed (no such bucket): 0 captions, 0 failed\n"


def test_an_interruption_ends_a_wait(run: Run, script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(BlockingTransport, "pause", interrupt)
    script.answers = [ok(job_json(), ETag='W/"1"'), (304, {"ETag": 'W/"1"'}, b"")]
    ran = run("status", "job_1", "--wait", CAPTIONFLEET_URL=script.url)
    assert (ran.status, ran.complaints) == (130, "captionfleet: interrupted\n")


def test_a_file_that_goes_away_after_it_was_found(run: Run, script: Script, photo: Path) -> None:
    def vanish() -> Said:
        photo.unlink()
        return MODELS

    script.answers = [vanish]
    ran = run("submit", photo, CAPTIONFLEET_URL=script.url)
    assert (ran.status, ran.error) == (2, f"{photo} cannot be read: no such file or directory")
