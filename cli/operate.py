"""`captionfleet serve`, `api`, `worker` and `migrate`: the processes of both modes."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import options
from cli.console import say
from jobs.errors import DatabaseUnavailable, StartupError

if TYPE_CHECKING:
    from jobs.settings import Settings

log = logging.getLogger(__name__)

Host = Annotated[str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")]
Port = Annotated[int | None, typer.Option(min=1, max=65535, help="Port to listen on.", show_default="8080")]


def serve(
    host: Host = None,
    port: Port = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder for everything that is kept.", show_default="data")
    ] = None,
    first_key: Annotated[
        bool,
        typer.Option("--first-key", help="Where keys are needed and there is none, make one and print it."),
    ] = False,
) -> None:
    """Run API, web page and worker in one process; Ctrl-C stops it, the data stays."""
    from cli.serving import EmbeddedServer

    EmbeddedServer(process_settings(host=host, port=port, data_dir=data_dir), first_key=first_key).run()


def api(host: Host = None, port: Port = None) -> None:
    """Run the API of distributed mode (PostgreSQL, Redis, S3)."""
    from api.server import serve as serve_api
    from api.wsgi import make_app

    settings = distributed(process_settings(host=host, port=port))
    check_database(settings)
    serve_api(lambda: make_app(settings), settings, workers=settings.api_workers)


def worker(
    device: options.Device = None,
    model: Annotated[
        str | None, typer.Option(help="Which of CAPTIONFLEET_MODELS to serve.", show_default="the first")
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(min=1, max=64, help="Chunks in hand at once.", show_default="4")
    ] = None,
) -> None:
    """Run a worker of distributed mode: one model, restarted when it dies."""
    from worker.main import run_worker

    settings = distributed(process_settings(device=device, concurrency=concurrency))
    raise typer.Exit(run_worker(settings, model=model))


def migrate(
    create_bucket: Annotated[
        bool, typer.Option("--create-bucket", help="Also make CAPTIONFLEET_BUCKET where there is none.")
    ] = False,
) -> None:
    """Bring the database's schema up to date."""
    from jobs.store import schema
    from jobs.store.database import open_database

    settings = process_settings()
    database = open_database(settings)
    try:
        schema.upgrade(database)
    finally:
        database.close()
    say(f"The schema is up to date ({schema.HEAD}).")
    if create_bucket:
        _create_bucket(distributed(settings))


def _create_bucket(settings: Settings) -> None:
    from jobs.objects.s3 import S3, S3Objects

    bucket = settings.bucket or ""
    made = S3Objects(S3(), bucket).create_bucket()
    say(f"Made the bucket {bucket}." if made else f"The bucket {bucket} is there.")


def process_settings(*, quiet: bool = False, **overrides: Any) -> Settings:
    """Read the settings and log as they say; ``quiet`` commands log warnings only."""
    from jobs.logs import set_up_logs
    from jobs.settings import load_settings

    settings = load_settings(**overrides)
    set_up_logs(settings, quiet=quiet)
    return settings


def distributed(settings: Settings) -> Settings:
    """Return the settings; raise ``StartupError`` where they are those of embedded mode."""
    if settings.embedded:
        message = (
            "REDIS_URL is not set: distributed mode needs REDIS_URL, DATABASE_URL and CAPTIONFLEET_BUCKET; "
            "on one machine `captionfleet serve` needs none of them"
        )
        raise StartupError("configuration_invalid", message)
    return settings


def check_database(settings: Settings, *, keys: bool = True) -> None:
    """Refuse an outdated schema; a database that is away may come back, the API says so until then."""
    from jobs.store import schema
    from jobs.store.database import open_database
    from jobs.store.keys import KeyStore

    database = open_database(settings)
    try:
        schema.check(database)
        if keys and settings.keys_required and not KeyStore(database).any_valid():
            log.warning("there is no API key: make one with `captionfleet keys create --owner NAME`")
    except DatabaseUnavailable as error:
        log.warning("starting all the same: %s", error)
    finally:
        database.close()
