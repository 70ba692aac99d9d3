"""`captionfleet demo`: a whole server on this machine, for a handful of photos, over HTTP."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from cli import outputs
from cli.console import CommandFailed, counted, say
from cli.files import find_images
from cli.operate import process_settings

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

    from captionfleet_client import Client
    from jobs.settings import Settings

SAMPLES = Path(__file__).resolve().parent.parent / "examples" / "photos"
RESULTS = Path("captions.jsonl")
START_S = 90.0
STOP_S = 30.0


def demo(
    photos: Annotated[
        Path | None, typer.Argument(help="Folder of photos, or one photo.", show_default="the sample photos")
    ] = None,
) -> None:
    """Start a server here, caption photos through its API, write captions.jsonl, stop it."""
    from cli.submission import plan
    from cli.waiting import follow
    from jobs.records import Item

    settings = process_settings(quiet=True)
    outputs.check(RESULTS)
    images = find_images([photos or SAMPLES])
    send = plan([str(path) for path in images], {})
    amount = counted(len(images), "photo")
    say(f"Captioning {amount} of {photos or SAMPLES} through a server on this machine.")
    began = time.monotonic()
    with _running_server(settings) as client:
        job = follow(client, send(client))
        items = [Item.model_validate(item.raw) for item in client.items(job)]
        outputs.save(RESULTS, client.download(job))
    outputs.show(items)
    failed = outputs.report_failures(items)
    captions, seconds = counted(len(items) - failed, "caption"), time.monotonic() - began
    say(f"{captions} in {RESULTS.resolve()}, {seconds:.1f} s in all.")
    if failed:
        raise typer.Exit(1)


@contextmanager
def _running_server(settings: Settings) -> Iterator[Client]:
    """Run an embedded server in a process of its own, its data in a folder that goes with it."""
    from cli.embedded import local_settings
    from cli.remote import talking

    with TemporaryDirectory(prefix="captionfleet-demo-", ignore_cleanup_errors=True) as folder:
        port = _free_port()
        update = {"port": port, "url": f"http://127.0.0.1:{port}", "api_key": None}
        local = local_settings(settings, Path(folder)).model_copy(update=update)
        server = multiprocessing.get_context("spawn").Process(target=_serve, args=(local,), name="server")
        server.start()
        try:
            _wait_ready(local.url, server)
            with talking(local.url) as client:
                yield client
        finally:
            _stop(server)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _serve(settings: Settings) -> None:
    """Be the server process; ends when the one that asked for it ends."""
    from cli.endings import ending
    from cli.serving import EmbeddedServer
    from jobs.logs import set_up_logs

    set_up_logs(settings, quiet=True)
    threading.Thread(target=_end_with_parent, args=(os.getpid(),), daemon=True).start()
    status = ending(EmbeddedServer(settings, announce=False).run)
    if status:
        sys.exit(status)


def _end_with_parent(server: int) -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.kill(server, signal.SIGTERM)


def _wait_ready(url: str, server: SpawnProcess) -> None:
    from captionfleet_client import Client, Retries

    deadline = time.monotonic() + START_S
    with Client(url, retries=Retries(attempts=1)) as client:
        while not _ready(client):
            if server.exitcode is not None:
                raise typer.Exit(server.exitcode if server.exitcode > 0 else 1)
            if time.monotonic() > deadline:
                raise CommandFailed(f"the server did not come up within {START_S:.0f} s")
            time.sleep(0.05)


def _ready(client: Client) -> bool:
    from captionfleet_client import CaptionfleetError

    try:
        client.call("GET", "/readyz")
    except CaptionfleetError:
        return False
    return True


def _stop(server: SpawnProcess) -> None:
    server.terminate()
    server.join(STOP_S)
    if server.exitcode is None:
        server.kill()
        server.join()
