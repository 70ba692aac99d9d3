"""`captionfleet doctor`: looks at everything the product needs here and says what to mend."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from cli import options
from cli.console import printable

if TYPE_CHECKING:
    from jobs.settings import Settings
    from jobs.store.database import Database
    from jobs.store.keys import KeyStore
    from jobs.store.stuck import StuckStore
    from jobs.store.workers import WorkerStore

LOW_DISK_BYTES = 1 << 30
DAY_S = 86400
# Where the service's own objects lie in its bucket.
OWN_PREFIXES = ("jobs/", "uploads/")

State = Literal["ok", "note", "broken"]


@dataclass(frozen=True)
class Finding:
    """What was found about one thing, and what to do where it is not as it should be."""

    what: str
    state: State
    detail: str
    mend: str = ""


def doctor(as_json: options.AsJson = False) -> None:
    """Check settings, database, broker, storage, model, device and machine; say what to mend."""
    found: list[Finding] = []
    for finding in examine():
        found.append(finding)
        if not as_json:
            _show(finding)
    if as_json:
        print(json.dumps([asdict(finding) for finding in found], indent=1, ensure_ascii=False))
    broken = sum(finding.state == "broken" for finding in found)
    if not as_json:
        print(f"\n{broken} broken" if broken else "\nAll is well.")
    raise typer.Exit(1 if broken else 0)


def examine() -> Iterator[Finding]:
    """Yield findings as they are made; without usable settings there is only one."""
    from jobs.errors import StartupError
    from jobs.settings import load_settings

    try:
        settings = load_settings()
    except StartupError as error:
        yield Finding("settings", "broken", error.message, "correct it; docs/settings.md lists all settings")
        return
    mode = "embedded (no REDIS_URL)" if settings.embedded else "distributed"
    yield Finding("settings", "ok", f"{mode}, models: {', '.join(settings.model_names)}")
    yield from _machine(settings)
    yield from _dependencies(settings)
    for name in settings.model_names:
        yield _checked(f"model {name}", lambda name=name: _model(settings, name))  # type: ignore[misc]


def _show(finding: Finding) -> None:
    mark = {"ok": "ok    ", "note": "note  ", "broken": "BROKEN"}[finding.state]
    print(f"{mark}  {finding.what}: {printable(finding.detail)}")
    if finding.mend:
        print(f"        -> {finding.mend}")


def _checked(what: str, look: Callable[[], Finding | str], mend: str = "") -> Finding:
    from jobs.errors import CaptionfleetError
    from model.errors import ModelError

    try:
        found = look()
    except (CaptionfleetError, ModelError) as error:
        return Finding(what, "broken", str(error), mend)
    return found if isinstance(found, Finding) else Finding(what, "ok", found)


def _machine(settings: Settings) -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = f", the model uses {settings.threads}" if settings.threads else ""
    yield Finding("cores", "ok", f"{cores} usable{threads}")
    folder = _existing(settings.data_dir)
    free = shutil.disk_usage(folder).free
    detail = f"{free / 1e9:.1f} GB free at {folder.resolve()}"
    if free < LOW_DISK_BYTES:
        yield Finding("disk", "broken", detail, "free some space or set CAPTIONFLEET_DATA_DIR elsewhere")
    else:
        yield Finding("disk", "ok", detail)
    yield _checked("image formats", _formats, "install the packages again: pip install -e .")


def _existing(path: Path) -> Path:
    path = path.absolute()
    return next(parent for parent in (path, *path.parents) if parent.is_dir())


def _formats() -> str:
    from model.image_formats import SUPPORTED_FORMATS

    return ", ".join(SUPPORTED_FORMATS)


def _dependencies(settings: Settings) -> Iterator[Finding]:
    from jobs.store.database import open_database
    from jobs.store.keys import KeyStore
    from jobs.store.stuck import StuckStore
    from jobs.store.workers import WorkerStore

    if settings.embedded:
        yield (folder := _checked("data folder", lambda: _data_folder(settings)))
        if folder.state == "broken" or not settings.data_dir.is_dir():
            return
    database = open_database(settings, exclusive=False)
    try:
        found = _checked("database", lambda: _database(settings, database), "see DATABASE_URL")
        yield found
        if found.state == "ok" and "schema" in found.detail:
            yield _callers(settings, KeyStore(database))
            if not settings.embedded:
                yield from _workers(settings, WorkerStore(database))
            yield from _work(StuckStore(database, 0))
            yield _checked("S3", lambda: _s3(settings, KeyStore(database)), "see AWS_*")
            yield from _result_buckets(KeyStore(database))
    finally:
        database.close()
    if settings.redis_url:
        yield _checked("broker", lambda: _broker(settings), "see REDIS_URL")
    if settings.bucket:
        yield _checked("bucket", lambda: _bucket(settings), "see CAPTIONFLEET_BUCKET and AWS_*")


def _data_folder(settings: Settings) -> Finding:
    folder = settings.data_dir
    if folder.exists() and not folder.is_dir():
        return Finding(
            "data folder", "broken", f"{folder} is a file", "set CAPTIONFLEET_DATA_DIR to a folder"
        )
    if not os.access(_existing(folder), os.W_OK):
        return Finding(
            "data folder", "broken", f"{folder} cannot be written", "give this user the right to write there"
        )
    return Finding(
        "data folder", "ok", str(folder.absolute()) if folder.exists() else f"{folder}, not made yet"
    )


def _database(settings: Settings, database: Database) -> str:
    from jobs.store import schema

    with database.read() as connection:
        found = schema.current(connection)
    if found is None and settings.embedded:
        return "empty; `captionfleet serve` fills it"
    schema.check(database)
    return f"{'SQLite' if database.is_sqlite else 'PostgreSQL'}, schema {found}"


def _broker(settings: Settings) -> str:
    from jobs.queue import queue_name
    from jobs.queue.celery import CeleryQueue

    queue = CeleryQueue(settings.redis_url or "")
    try:
        queue.check()
        waiting = [
            queue.depth(queue_name(name, fast=fast))
            for name in settings.model_names
            for fast in (True, False)
        ]
    finally:
        queue.close()
    return f"Redis answers, {sum(waiting)} messages waiting"


def _bucket(settings: Settings) -> Finding | str:
    """Look whether the bucket answers, and whether it keeps objects for as long as jobs may need them."""
    from jobs.objects.s3 import S3, S3Objects
    from jobs.objects.s3_rules import read_lifecycle

    s3, bucket = S3(), settings.bucket or ""
    S3Objects(s3, bucket).check()
    rules = read_lifecycle(s3, bucket, OWN_PREFIXES)
    least = 2 * settings.retention_days
    if rules is None or rules.days is None or rules.days >= least:
        return f"{bucket} answers"
    detail = f"a lifecycle rule of {bucket} takes objects after {rules.days} days, also of jobs that run"
    mend = f"let it wait {least} days, twice CAPTIONFLEET_RETENTION_DAYS; expired jobs are removed without it"
    return Finding("bucket", "note", detail, mend)


def _result_buckets(keys: KeyStore) -> Iterator[Finding]:
    """Look at buckets that results are written to: a process that is killed leaves parts of uploads there."""
    from jobs.errors import CaptionfleetError
    from jobs.objects.s3 import S3, missing_access
    from jobs.objects.s3_rules import read_lifecycle

    grants = [] if missing_access() else [grant for grant in keys.grants() if grant.writable]
    s3 = S3()
    for bucket in sorted({grant.bucket for grant in grants}):
        try:
            prefixes = [grant.prefix for grant in grants if grant.bucket == bucket]
            rules = read_lifecycle(s3, bucket, prefixes)
        except CaptionfleetError:
            continue  # Somebody else's bucket may be away, or shut.
        if rules is not None and not rules.aborts_uploads:
            mend = "add a lifecycle rule with AbortIncompleteMultipartUpload after a day or more"
            yield Finding(f"results in {bucket}", "note", "no rule removes unfinished uploads", mend)


def _callers(settings: Settings, keys: KeyStore) -> Finding:
    if not settings.keys_required:
        return Finding("API keys", "ok", "none needed on a loopback address")
    if keys.any_valid():
        return Finding("API keys", "ok", "there are valid keys")
    return Finding("API keys", "note", "nobody can call", "make one: captionfleet keys create --owner NAME")


def _workers(settings: Settings, store: WorkerStore) -> Iterator[Finding]:
    alive = store.alive()
    if alive:
        names = ", ".join(sorted(f"{worker.model} on {worker.device}" for worker in alive))
        yield Finding("workers", "ok", f"{len(alive)} alive: {names}")
    served = {worker.model for worker in alive}
    for name in settings.model_names:
        if name not in served:
            mend = f"start one: captionfleet worker --model {name}"
            yield Finding(f"workers of {name}", "note", "none is alive; jobs wait", mend)
        elif len({worker.digest for worker in alive if worker.model == name}) > 1:
            mend = "expected while an upgrade rolls through; else give all workers the same weights"
            yield Finding(f"workers of {name}", "note", "they serve different weights", mend)


def _work(store: StuckStore) -> Iterator[Finding]:
    """Look at the jobs of all owners: whether they go on, and whether their ends are told."""
    if not store.swept():
        detail = "no process recovers lost work now"
        yield Finding("sweep", "note", detail, "start the server: captionfleet serve, api or worker")
    jobs = {one.job_id for one in store.find()}
    if jobs:
        yield Finding("jobs", "broken", f"{len(jobs)} do not go on by themselves", "see `captionfleet stuck`")
    else:
        yield Finding("jobs", "ok", "none is stuck")
    if failed := store.failed_deliveries(DAY_S):
        mend = "their owners see why: captionfleet webhooks deliveries --status failed"
        yield Finding("webhooks", "note", f"{failed} of the last day were given up", mend)


def _s3(settings: Settings, keys: KeyStore) -> Finding | str:
    """Look for credentials: without them no job that names S3 objects is taken."""
    from jobs.objects.s3 import missing_access

    reason = missing_access()
    if reason is None:
        return "there are credentials"
    if settings.bucket or keys.grants():
        return Finding("S3", "broken", f"nothing can be read: {reason}", "see AWS_*")
    return Finding("S3", "ok", f"jobs cannot name s3:// objects: {reason}")


def _model(settings: Settings, name: str) -> str:
    """Load the model as a worker does and caption a plain picture."""
    import numpy as np

    from model.captioner import DecodingOptions
    from worker.batch_size import best_batch_size
    from worker.loading import load_model

    captioner = load_model(settings, name)
    shape = (1, captioner.preprocessing.height, captioner.preprocessing.width, 3)
    options = captioner.resolve(DecodingOptions())
    began = time.perf_counter()
    captioner.caption(np.full(shape, 127, dtype=np.uint8), options)
    milliseconds = (time.perf_counter() - began) * 1000
    batches = f"batches of up to {settings.batch_size or best_batch_size(captioner)}"
    return f"{captioner.name} on {captioner.device}, {batches}, one caption in {milliseconds:.0f} ms"
