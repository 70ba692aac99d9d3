"""The client commands: jobs on a server, over HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import options, outputs
from cli.console import print_table, say, usage_error

if TYPE_CHECKING:
    from cli.remote import Remote

PAGE = 100

JobId = Annotated[str, typer.Argument(metavar="JOB", help="Id of the job.", show_default=False)]
Wait = Annotated[bool, typer.Option("--wait", help="Wait for the end; exit 1 if an image failed.")]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="FILE.jsonl, .csv, .parquet or .zip (of .txt).")
]


class ResultsFormat(StrEnum):
    """What results are downloaded as."""

    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"
    TXT_ZIP = "txt.zip"


Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE...",
        help="Images and folders; or a .zip or .tar; or s3:// and https:// addresses; or one "
        "s3://bucket/prefix/; or a manifest (.ndjson, .jsonl, .csv), here or in S3.",
    ),
]
Webhook = Annotated[str | None, typer.Option(metavar="URL", help="Called, signed, when the job has ended.")]
Glob = Annotated[
    str | None, typer.Option(help="Of a prefix, objects that match: * in a part, ** across parts.")
]
Suffixes = Annotated[list[str] | None, typer.Option(help="Of a prefix, objects that end so, such as .jpg.")]
ModifiedSince = Annotated[
    datetime | None, typer.Option(help="Of a prefix, objects changed since (UTC).", show_default=False)
]
To = Annotated[
    str | None, typer.Option(metavar="S3://…", help="Results there too: an object, or under a prefix/.")
]
S3Sidecar = Annotated[str | None, typer.Option(help="txt or json beside each image in S3.")]


def submit(
    sources: Sources,
    wait: Wait = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="With --wait: results into FILE.jsonl, .csv, .parquet, .zip."),
    ] = None,
    model: options.Model = None,
    num_beams: options.NumBeams = None,
    num_captions: options.NumCaptions = None,
    max_length: options.MaxLength = None,
    min_length: options.MinLength = None,
    prompt: options.Prompt = None,
    length_penalty: options.LengthPenalty = None,
    top_p: options.TopP = None,
    temperature: options.Temperature = None,
    seed: options.Seed = None,
    webhook: Webhook = None,
    glob: Glob = None,
    suffix: Suffixes = None,
    modified_since: ModifiedSince = None,
    to: To = None,
    sidecar: S3Sidecar = None,
    as_json: options.AsJson = False,
) -> None:
    """Send images, or say where they lie; prints the job's id."""
    from cli.submission import plan
    from cli.waiting import follow

    if output is not None:
        if not wait:
            raise usage_error("--output needs --wait; later, use `captionfleet results`")
        outputs.file_format(output)
        outputs.check(output)
    wanted = options.caption_options(**options.given(locals()))
    asked: dict[str, Any] = {"options": wanted.model_dump(exclude_none=True)}
    if webhook is not None:
        asked["webhook_url"] = webhook
    asked |= _selection(glob, suffix, modified_since) | _output(to, sidecar)
    send = plan(sources, asked)
    with connected() as remote:
        job = send(remote)
        if wait:
            say(f"captionfleet: {job['id']}: {job['counts']['total']} images")
            job = follow(remote, job)
        if output is not None:
            _download(remote, job["id"], output, outputs.file_format(output), partial=True)
    _print_submitted(job, as_json)
    if wait:
        _report_end(job)


def _selection(glob: str | None, suffixes: list[str] | None, since: datetime | None) -> dict[str, Any]:
    modified = since.replace(tzinfo=UTC).isoformat() if since else None
    given = {"glob": glob, "suffixes": suffixes, "modified_since": modified}
    wanted = {name: value for name, value in given.items() if value}
    return {"filter": wanted} if wanted else {}


def _output(to: str | None, sidecar: str | None) -> dict[str, Any]:
    wanted = {"s3_prefix" if to.endswith("/") else "uri": to} if to else {}
    if sidecar:
        wanted["sidecar"] = sidecar
    return {"output": wanted} if wanted else {}


def jobs(
    status: Annotated[str | None, typer.Option(help="Only jobs in this status.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 20,
    as_json: options.AsJson = False,
) -> None:
    """List jobs, newest first."""
    with connected() as remote:
        found = list(pages(remote, "/v1/jobs", limit, status=status))
    if as_json:
        _print_json(found)
        return
    print_table(("job", "status", "done", "failed", "model", "created (UTC)"), [_row(job) for job in found])


def status(
    job_id: JobId,
    wait: Wait = False,
    as_json: options.AsJson = False,
) -> None:
    """Show one job."""
    from cli.waiting import follow

    with connected() as remote:
        job = remote.get(f"/v1/jobs/{job_id}")
        if wait:
            job = follow(remote, job)
    _print_json(job) if as_json else print_table(("field", "value"), _fields(job))
    if wait:
        _report_end(job)


def results(
    job_id: JobId,
    output: Output = None,
    form: Annotated[
        ResultsFormat | None, typer.Option("--format", help="Default: what FILE's name says, else jsonl.")
    ] = None,
    partial: Annotated[bool, typer.Option(help="Before the job's end: what there is so far.")] = False,
) -> None:
    """Download a finished job's results, to standard output without -o."""
    if output is not None:
        outputs.check(output)
    wanted = form.value if form else outputs.file_format(output) if output else "jsonl"
    with connected() as remote:
        _download(remote, job_id, output, wanted, partial=partial)


def cancel(job_id: JobId, as_json: options.AsJson = False) -> None:
    """Cancel a job; images in hand are dropped."""
    _turn(job_id, "cancel", as_json=as_json)


def retry(job_id: JobId, as_json: options.AsJson = False) -> None:
    """Caption a finished job's failed and canceled images again."""
    _turn(job_id, "retry", as_json=as_json)


def delete(job_id: JobId) -> None:
    """Delete a job with its images and captions."""
    with connected() as remote:
        remote.delete(f"/v1/jobs/{job_id}")
    say(f"{job_id} is deleted.")


@contextmanager
def connected() -> Iterator[Remote]:
    """Talk to the server of CAPTIONFLEET_URL."""
    from cli.remote import Remote
    from jobs.logs import set_up_logs
    from jobs.settings import load_settings

    settings = load_settings()
    set_up_logs(settings, quiet=True)
    with Remote(settings) as remote:
        yield remote


def _turn(job_id: str, turn: str, *, as_json: bool) -> None:
    with connected() as remote:
        job = remote.post(f"/v1/jobs/{job_id}/{turn}")
    if as_json:
        _print_json(job)
    else:
        say(f"{job_id} is {job['status']}.")


def _download(remote: Remote, job_id: str, output: Path | None, form: str, *, partial: bool) -> None:
    params = {"format": form} | ({"partial": 1} if partial else {})
    with remote.stream(f"/v1/jobs/{job_id}/results", **params) as blocks:
        outputs.save(output, blocks)


def pages(remote: Remote, path: str, limit: int, **query: Any) -> Iterator[dict[str, Any]]:
    """Yield at most ``limit`` entries of a list, page by page."""
    cursor = None
    while limit > 0:
        page = remote.get(path, limit=min(limit, PAGE), cursor=cursor, **query)
        yield from page["data"]
        limit -= len(page["data"])
        cursor = page["next_cursor"]
        if cursor is None:
            return


def _row(job: dict[str, Any]) -> tuple[str, ...]:
    counts = job["counts"]
    done = f"{counts['succeeded'] + counts['failed']}/{counts['total']}"
    created = str(job["created_at"])[:16].replace("T", " ")
    return job["id"], job["status"], done, str(counts["failed"]), job["model"], created


def _fields(job: dict[str, Any]) -> list[tuple[str, str]]:
    hidden = ("object", "links", "id", "counts")
    counts = ", ".join(f"{count} {name}" for name, count in job["counts"].items() if count)
    shown = {name: value for name, value in job.items() if name not in hidden and value not in (None, {})}
    return [("job", job["id"]), ("images", counts), *((name, _text(value)) for name, value in shown.items())]


def _text(value: Any) -> str:
    if isinstance(value, dict):
        value = {name: entry for name, entry in value.items() if entry is not None}
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)


def _print_submitted(job: dict[str, Any], as_json: bool) -> None:
    _print_json(job) if as_json else print(job["id"])


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=1, ensure_ascii=False))


def _report_end(job: dict[str, Any]) -> None:
    counts = job["counts"]
    error = f" ({job['error']['message']})" if job["error"] else ""
    images = f"{counts['succeeded']} captions, {counts['failed']} failed"
    say(f"captionfleet: {job['id']} is {job['status']}{error}: {images}")
    if job["status"] != "completed" or counts["failed"]:
        raise typer.Exit(1)
