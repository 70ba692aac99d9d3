"""The client commands: jobs on a server, over HTTP."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from cli import options, outputs
from cli.console import CommandFailed, counted, print_json, print_table, say, usage_error
from cli.remote import connected

if TYPE_CHECKING:
    from captionfleet_client import Client, Format, Job, JobSettings, JobStatus, ObjectFilter

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
    asked = cast("JobSettings", {"options": wanted.model_dump(exclude_none=True), **_output(to, sidecar)})
    if webhook is not None:
        asked["webhook_url"] = webhook
    send = plan(sources, asked, _selection(glob, suffix, modified_since))
    with connected() as client:
        _check_formats(client, output, to)
        job = send(client)
        if wait:
            say(f"captionfleet: {job.id}: {counted(job.counts.total)}")
            job = follow(client, job)
        if output is not None:
            _download(client, job.id, output, outputs.file_format(output), partial=True)
    _print_submitted(job, as_json)
    if wait:
        _report_end(job)


def _check_formats(client: Client, output: Path | None, to: str | None) -> None:
    """Learn before anything is sent whether the server writes what is asked for: Parquet takes a package."""
    if not any(str(place).lower().endswith(".parquet") for place in (output, to)):
        return
    # A server of an older version does not say.
    formats = client.call("GET", "/v1/limits").get("result_formats", ["parquet"])
    if "parquet" not in formats:
        others = ", ".join(formats)
        message = f"this server writes {others}, but no parquet (it lacks pyarrow); nothing was sent"
        raise CommandFailed(f"{message} (not_acceptable)")


def _selection(glob: str | None, suffixes: list[str] | None, since: datetime | None) -> ObjectFilter:
    modified = since.replace(tzinfo=UTC).isoformat() if since else None
    given = {"glob": glob, "suffixes": suffixes, "modified_since": modified}
    return cast("ObjectFilter", {name: value for name, value in given.items() if value})


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
    with connected() as client:
        found = list(client.jobs(cast("JobStatus | None", status), limit=limit))
    if as_json:
        print_json([job.raw for job in found])
        return
    print_table(("job", "status", "done", "failed", "model", "created (UTC)"), [_row(job) for job in found])


def status(
    job_id: JobId,
    wait: Wait = False,
    as_json: options.AsJson = False,
) -> None:
    """Show one job."""
    from cli.waiting import follow

    with connected() as client:
        job = follow(client, job_id) if wait else client.job(job_id)
    print_json(job.raw) if as_json else print_table(("field", "value"), _fields(job))
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
    with connected() as client:
        _download(client, job_id, output, wanted, partial=partial)


def cancel(job_id: JobId, as_json: options.AsJson = False) -> None:
    """Cancel a job; images in hand are dropped."""
    with connected() as client:
        _print_turned(client.cancel(job_id), as_json=as_json)


def retry(job_id: JobId, as_json: options.AsJson = False) -> None:
    """Caption a finished job's failed and canceled images again."""
    with connected() as client:
        _print_turned(client.retry(job_id), as_json=as_json)


def delete(job_id: JobId) -> None:
    """Delete a job with its images and captions."""
    with connected() as client:
        client.delete(job_id)
    say(f"{job_id} is deleted.")


def _print_turned(job: Job, *, as_json: bool) -> None:
    print_json(job.raw) if as_json else say(f"{job.id} is {job.status}.")


def _download(client: Client, job_id: str, output: Path | None, form: str, *, partial: bool) -> None:
    outputs.save(output, client.download(job_id, cast("Format", form), partial=partial))


def _row(job: Job) -> tuple[str, ...]:
    counts = job.counts
    done = f"{counts.succeeded + counts.failed}/{counts.total}"
    return job.id, job.status, done, str(counts.failed), job.model, f"{job.created_at:%Y-%m-%d %H:%M}"


def _fields(job: Job) -> list[tuple[str, str]]:
    hidden = ("object", "links", "id", "counts")
    counts = ", ".join(f"{count} {name}" for name, count in job.counts.raw.items() if count)
    shown = {name: value for name, value in job.raw.items() if name not in hidden and value not in (None, {})}
    return [("job", job.id), ("images", counts), *((name, _text(value)) for name, value in shown.items())]


def _text(value: Any) -> str:
    if isinstance(value, dict):
        value = {name: entry for name, entry in value.items() if entry is not None}
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)


def _print_submitted(job: Job, as_json: bool) -> None:
    print_json(job.raw) if as_json else print(job.id)


def _report_end(job: Job) -> None:
    error = f" ({job.error.message})" if job.error else ""
    images = f"{counted(job.counts.succeeded, 'caption')}, {job.counts.failed} failed"
    say(f"captionfleet: {job.id} is {job.status}{error}: {images}")
    if job.status != "completed" or job.counts.failed:
        raise typer.Exit(1)
