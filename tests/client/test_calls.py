"""Calls over HTTP: when they are repeated, how long they wait, what they raise."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from captionfleet_client import (
    AccessDenied,
    ApiError,
    CaptionfleetError,
    Client,
    Conflict,
    ConnectionFailed,
    Files,
    Images,
    InvalidArgument,
    InvalidRequest,
    Manifest,
    NotFound,
    Prefix,
    Retries,
    Retry,
    Unavailable,
    UnexpectedAnswer,
    UnreadableFile,
    WaitTimeout,
)
from tests.client.conftest import Answer, Connect, Either, Script, job_json, ok, problem
from tests.web import Came


def test_a_busy_server_is_given_the_time_it_asks_for(
    script: Script, connect: Connect, pauses: list[float], tmp_path: Path
) -> None:
    heard: list[Retry] = []
    (tmp_path / "a.jpg").write_bytes(b"an image")
    client = connect(script.url, api_key="cf_secret", retries=Retries(on_retry=heard.append))
    script.answers = [
        problem(503, "database_unavailable", Retry_After="7"),
        problem(429, "rate_limited", Retry_After="3600"),
        problem(409, "idempotency_in_progress", Retry_After="5"),
        None,
        ok(job_json()),
    ]
    assert client.submit(Files([tmp_path / "a.jpg"])).id == "job_1"
    assert pauses[:3] == [7, 60, 5]
    assert 0 < pauses[3] <= 15
    assert len({came.body for came in script.came}) == 1
    assert b"an image" in script.came[0].body
    assert len({came.headers["Idempotency-Key"] for came in script.came}) == 1
    assert {came.headers["Authorization"] for came in script.came} == {"Bearer cf_secret"}
    assert heard[0] == Retry(1, 7, "it is database_unavailable (database_unavailable)")


def test_a_quota_that_comes_back_tomorrow_is_not_waited_for(
    script: Script, scripted: Either, pauses: list[float]
) -> None:
    script.answers = [
        problem(429, "quota_exceeded", Retry_After="30"),
        problem(429, "quota_exceeded", Retry_After="40000"),
    ]
    with pytest.raises(Unavailable, match="quota_exceeded"):
        scripted.submit(Images(["s3://b/a"]))
    assert pauses == [30]


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "invalid_request", InvalidRequest),
        (401, "unauthorized", AccessDenied),
        (404, "job_not_found", NotFound),
        (409, "idempotency_conflict", Conflict),
        (413, "too_many_images", InvalidRequest),
        (500, "internal_error", ApiError),
    ],
)
def test_what_is_refused_for_good_is_raised_at_once(
    script: Script, scripted: Either, pauses: list[float], status: int, code: str, kind: type[ApiError]
) -> None:
    script.answers = [problem(status, code)]
    with pytest.raises(kind, match=rf"it is {code} \({code}\)") as caught:
        scripted.submit(Prefix("s3://bucket/photos/"))
    assert (caught.value.code, caught.value.status, caught.value.request_id) == (code, status, "req_1")
    assert pauses == []


def test_the_time_to_wait_may_be_a_date(script: Script, scripted: Either, pauses: list[float]) -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    dates = (later, "Mon, 01 Jan 2024 00:00:00 GMT", "soon", "\xb2")
    script.answers = [
        *(problem(503, "database_unavailable", Retry_After=date) for date in dates),
        ok(job_json()),
    ]
    scripted.job("job_1")
    assert 25 < pauses[0] <= 30
    assert pauses[1] == 0
    assert all(0 < pause <= 15 for pause in pauses[2:])


def test_patience_ends(script: Script, connect: Connect, pauses: list[float]) -> None:
    script.answers = [problem(503, "storage_unavailable", Retry_After="1")] * 3
    client = connect(script.url, retries=Retries(attempts=3))
    with pytest.raises(Unavailable, match="storage_unavailable"):
        client.job("job_1")
    assert pauses == [1, 1]


@pytest.mark.parametrize("answer", [None, problem(503, "database_unavailable", Retry_After="1")])
def test_a_turn_that_may_have_happened_is_not_repeated(
    script: Script, scripted: Either, pauses: list[float], answer: Answer
) -> None:
    script.answers = [ok(job_json()), answer]
    scripted.job("job_1")
    with pytest.raises(CaptionfleetError):
        scripted.retry("job_1")
    assert pauses == []
    script.answers = [problem(429, "rate_limited", Retry_After="1"), ok(job_json()), answer, ok(job_json())]
    scripted.retry("job_1")
    scripted.cancel("job_1")
    assert pauses[0] == 1
    assert len(pauses) == 2


def test_a_server_that_was_never_there_is_not_waited_for(connect: Connect, pauses: list[float]) -> None:
    with pytest.raises(ConnectionFailed, match=r"no Captionfleet server answers at http://127.0.0.1:1 \("):
        connect("http://127.0.0.1:1").job("job_1")
    assert pauses == []


def test_a_server_that_restarts_is_waited_for(script: Script, scripted: Either, pauses: list[float]) -> None:
    script.answers = [ok(job_json()), None, None, ok(job_json())]
    scripted.job("job_1")
    assert scripted.job("job_1").id == "job_1"
    assert len(pauses) == 2


@pytest.mark.parametrize(
    "answer", [(200, {}, b"<html>"), (404, {}, b"<html>"), (404, {}, b"[]"), (200, {}, b"[]")]
)
def test_another_kind_of_server(script: Script, scripted: Either, answer: Answer) -> None:
    script.answers = [answer]
    with pytest.raises((UnexpectedAnswer, NotFound), match=r"does not answer like|answer is no job"):
        scripted.job("job_1")


def test_a_wait_asks_for_what_is_new(script: Script, scripted: Either, pauses: list[float]) -> None:
    running, done = job_json(), job_json(status="completed")
    script.answers = [
        ok(running, ETag='W/"1"'),
        (304, {"ETag": 'W/"1"'}, b""),
        ok(done, ETag='W/"2"'),
    ]
    seen: list[str] = []
    job = scripted.wait("job_1", progress=lambda job: seen.append(job.status))
    assert (job.status, job.final, seen) == ("completed", True, ["running", "completed"])
    asked = [(came.path, came.headers.get("If-None-Match")) for came in script.came]
    # The first look is at what is there now; only then is there a version whose end can be waited for.
    assert asked == [
        ("/v1/jobs/job_1", None),
        ("/v1/jobs/job_1?wait=20.0", 'W/"1"'),
        ("/v1/jobs/job_1?wait=20.0", 'W/"1"'),
    ]
    # A server too busy to wait answers at once; it is not asked in a tight loop.
    assert len(pauses) == 1
    assert 0 < pauses[0] <= 0.2


def test_a_wait_asks_even_where_a_record_says_it_is_over(
    script: Script, scripted: Either, pauses: list[float]
) -> None:
    script.answers = [ok(job_json(status="completed")), ok(job_json(), ETag='W/"5"')]
    job = scripted.job("job_1")
    script.answers.append(ok(job_json(status="completed", finished_at="2026-11-23T04:00:00Z"), ETag='W/"6"'))
    assert scripted.wait(job).finished_at is not None
    assert pauses == []


def test_a_wait_is_paced_where_versions_get_lost(
    script: Script, scripted: Either, pauses: list[float]
) -> None:
    script.answers = [*[ok(job_json())] * 3, ok(job_json(status="canceled"))]
    assert scripted.wait("job_1").status == "canceled"
    assert len(pauses) == 3
    assert all(pause > 0 for pause in pauses)


def test_a_wait_ends_in_time(script: Script, scripted: Either) -> None:
    script.answers = [ok(job_json(), ETag='W/"1"'), *[(304, {"ETag": 'W/"1"'}, b"")] * 10]
    with pytest.raises(WaitTimeout, match=r"job_1 is not over after 0.5 s"):
        scripted.wait("job_1", timeout=0.5)


@pytest.mark.parametrize("away", [problem(503, "database_unavailable", Retry_After="7"), None])
@pytest.mark.parametrize("known", [0, 1])
def test_a_wait_ends_in_time_where_the_server_is_away(
    script: Script, scripted: Either, pauses: list[float], away: Answer, known: int
) -> None:
    script.answers = [ok(job_json())]
    scripted.job("job_1")
    script.answers = [*[ok(job_json(), ETag='W/"1"')] * known, *[away] * 10]
    with pytest.raises(WaitTimeout, match="without an answer: "):
        scripted.wait("job_1", timeout=0.3)
    assert sum(pauses) <= 0.3


def test_lists_without_pages_are_asked_for_nothing(script: Script, scripted: Either) -> None:
    script.answers = [ok({"data": [{"id": "key_1"}]})]
    assert scripted.entries("/v1/admin/keys", owner="ann") == [{"id": "key_1"}]
    assert script.came[0].path == "/v1/admin/keys?owner=ann"
    script.answers = [ok({"data": [{}, {}], "next_cursor": "c1"}), ok({"data": [{}]})]
    assert len(scripted.entries("/v1/webhooks/deliveries", 3)) == 3
    assert [came.path for came in script.came[1:]] == [
        "/v1/webhooks/deliveries?limit=3",
        "/v1/webhooks/deliveries?limit=1&cursor=c1",
    ]


def test_lists_go_on_to_the_last_page_or_the_limit(script: Script, scripted: Either) -> None:
    page = {"data": [job_json()] * 100, "next_cursor": "c1"}
    script.answers = [ok(page), ok({"data": [job_json()] * 3, "next_cursor": None})]
    assert len(scripted.jobs("completed")) == 103
    assert script.came[0].path == "/v1/jobs?limit=100&status=completed"
    assert "cursor=c1" in script.came[1].path
    script.answers = [ok({"data": [job_json()] * 7, "next_cursor": "c1"})]
    assert len(scripted.jobs(limit=7)) == 7
    script.answers = [ok([]), ok({})]
    for strange in (scripted.models, scripted.jobs):
        with pytest.raises(UnexpectedAnswer, match="is no list"):
            strange()


def test_records_are_typed_and_keep_what_is_new(script: Script, scripted: Either) -> None:
    script.answers = [ok(job_json(error={"code": "timeout", "message": "late"}))]
    job = scripted.job("job_1")
    assert job.created_at == datetime(2026, 11, 23, 3, 16, 16, 701173, UTC)
    assert (job.error.code, job.finished_at, job.raw["something_new"]) == ("timeout", None, 1)


@pytest.mark.parametrize("lost", [None, problem(503, "database_unavailable", Retry_After="1")])
def test_what_a_deletion_whose_answer_was_lost_took_away_is_gone(
    script: Script, scripted: Either, pauses: list[float], lost: Answer
) -> None:
    script.answers = [ok(job_json()), lost, problem(404, "job_not_found")]
    scripted.job("job_1")
    scripted.delete("job_1")
    # What was never there, or has not been asked for yet, is still said to be missing.
    script.answers = [problem(429, "rate_limited", Retry_After="1"), problem(404, "job_not_found")]
    with pytest.raises(NotFound):
        scripted.delete("job_1")
    assert script.answers == []


def test_results_whose_last_line_has_no_end(script: Script, scripted: Either) -> None:
    item = {
        "position": 0,
        "custom_id": "a",
        "name": "a",
        "source": "upload",
        "status": "failed",
        "attempts": 1,
    }
    lines = "\n".join(json.dumps(item | {"position": number, "alternatives": []}) for number in range(2))
    script.answers = [(200, {}, lines.encode()), (200, {}, b'{"position": 0}\n')]
    assert [item.position for item in scripted.results("job_1")] == [0, 1]
    with pytest.raises(UnexpectedAnswer):
        scripted.results("job_1")


def test_a_download_that_breaks_off_is_no_result(script: Script, scripted: Either) -> None:
    # More bytes are promised than come.
    script.answers = [
        (200, {"Content_Length": "9000"}, b'{"position": 0}\n'),
        problem(409, "job_not_finished"),
    ]
    with pytest.raises(ConnectionFailed, match="broke"):
        scripted.download("job_1")
    assert script.came[0].path == "/v1/jobs/job_1/results?format=jsonl"
    with pytest.raises(Conflict, match="it is job_not_finished"):
        scripted.results("job_1")


def _sent(script: Script) -> tuple[str, str, bytes]:
    came: Came = script.came[-1]
    return came.path, came.headers["Content-Type"], came.body


def test_what_each_source_sends(script: Script, scripted: Either, tmp_path: Path) -> None:
    script.answers = [ok(job_json())] * 4
    scripted.submit(Images(["s3://b/a.jpg", "https://x/b.jpg", {"upload_id": "u", "custom_id": "c"}]))
    images = b'[{"s3_uri": "s3://b/a.jpg"}, {"url": "https://x/b.jpg"}, {"upload_id": "u", "custom_id": "c"}]'
    assert _sent(script) == ("/v1/jobs", "application/json", b'{"images": ' + images + b"}")
    scripted.submit(Prefix("s3://b/p/", {"glob": "*.png"}), options={"num_beams": 2}, metadata={"a": 1})
    assert json.loads(_sent(script)[2]) == {
        "s3_prefix": "s3://b/p/",
        "filter": {"glob": "*.png"},
        "options": {"num_beams": 2},
        "metadata": {"a": 1},
    }
    scripted.submit(Manifest("s3://b/list.csv"))
    assert _sent(script)[2] == b'{"manifest": "s3://b/list.csv"}'
    (tmp_path / "list.csv").write_text("url\nhttps://x/a.jpg\n")
    scripted.submit(Manifest(tmp_path / "list.csv"), options={"use_cache": False}, priority="low")
    assert _sent(script) == ("/v1/jobs?use_cache=false&priority=low", "text/csv", b"url\nhttps://x/a.jpg\n")
    with pytest.raises(InvalidArgument, match="a manifest here takes no metadata; put the list into S3"):
        scripted.submit(Manifest(tmp_path / "list.csv"), metadata={"a": 1})


def test_a_list_too_long_for_a_request_goes_as_a_manifest(script: Script, scripted: Either) -> None:
    images = [f"s3://bucket/{number:0900}.jpg" for number in range(10_000)]
    script.answers = [ok(job_json())]
    scripted.submit(Images(images), options={"num_beams": 2}, webhook_url="https://x/hook")
    path, kind, body = _sent(script)
    assert (path, kind) == ("/v1/jobs?num_beams=2&webhook_url=https%3A%2F%2Fx%2Fhook", "application/x-ndjson")
    assert [json.loads(line)["s3_uri"] for line in body.splitlines()] == images
    with pytest.raises(InvalidArgument, match="a list of 10000 images takes no metadata and output; put"):
        scripted.submit(Images(images), metadata={"a": 1}, output={"uri": "s3://b/out.jsonl"})
    assert len(script.came) == 1


def test_what_cannot_be_sent_is_an_error_of_the_clients(
    script: Script, scripted: Either, connect: Connect, tmp_path: Path
) -> None:
    for url in ("ftp://x", "nowhere", "http://x:y", "http://a\0b", f"http://{'a' * 64}.x"):
        with pytest.raises(InvalidArgument, match="is no address of a server"):
            connect(url)
    with pytest.raises(InvalidArgument, match="an API key is made of") as caught:
        connect(script.url, api_key="secret\n")
    assert "secret" not in str(caught.value)
    with pytest.raises(InvalidArgument, match="an idempotency key is made of"):
        scripted.submit(Images(["s3://b/a"]), idempotency_key="ключ")
    for value in (float("nan"), object()):
        with pytest.raises(InvalidArgument, match="cannot be sent as JSON"):
            scripted.submit(Images(["s3://b/a"]), metadata={"value": value})
    for path, reason in (
        (tmp_path, "is not a file"),
        ("a\0b", "cannot be read"),
        ("no", "cannot be read: no"),
    ):
        for source in (Files([path]), Manifest(path)):
            with pytest.raises(UnreadableFile, match=reason):
                scripted.submit(source)
        with pytest.raises(UnreadableFile, match=reason):
            scripted.caption(Path(path))
    assert script.came == []


def test_a_file_that_goes_away_while_a_call_is_repeated(
    script: Script, scripted: Either, pauses: list[float], tmp_path: Path
) -> None:
    photo = tmp_path / "a.jpg"
    photo.write_bytes(b"an image")
    body = Files([photo]).request({}).body
    photo.unlink()
    with pytest.raises(UnreadableFile, match=r"a.jpg cannot be read: no such file"):
        list(body.blocks())


def test_no_proxy_between_this_machine_and_itself(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    script.answers = [ok(job_json())]
    with Client(script.url) as client:
        assert client.job("job_1").id == "job_1"
    with Client("http://captions.invalid") as client, pytest.raises(ConnectionFailed):
        client.job("job_1")


def test_the_timeout_outlasts_a_wait() -> None:
    with Client() as client:
        timeout = client._http.timeout.read
    assert timeout is not None
    assert timeout > 30


def test_one_open_download_can_be_left(script: Script) -> None:
    script.answers = [(200, {}, b"line\n" * 3), ok(job_json())]
    with Client(script.url) as client:
        blocks = client.download("job_1", "csv", partial=True)
        assert next(blocks).startswith(b"line\n")
        del blocks
        assert client.job("job_1").id == "job_1"
