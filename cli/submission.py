"""What `captionfleet submit` sends: images, an archive, S3 URIs, URLs, a prefix or a manifest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from captionfleet_client import (
    Archive,
    Client,
    Files,
    Images,
    Job,
    JobSettings,
    Manifest,
    ObjectFilter,
    Prefix,
)
from cli.console import CommandFailed, counted, progress, usage_error
from cli.files import find_images
from cli.remote import in_words
from jobs.image_types import named_like_image

MANIFESTS = (".ndjson", ".jsonl", ".csv")
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
ELSEWHERE = ("s3://", "http://", "https://")
Planned = Files | Archive | Images | Prefix | Manifest
Send = Callable[[Client], Job]


def plan(sources: Sequence[str], job: JobSettings, selection: ObjectFilter | None = None) -> Send:
    """Look at everything that is to be sent; the value sends it and returns the job.

    Raises ``CommandFailed`` (status 2) for what cannot be sent, before the server is asked anything.
    """
    elsewhere = [source for source in sources if source.startswith(ELSEWHERE)]
    here = [source for source in sources if not source.startswith(ELSEWHERE)]
    named = None if here else _named(elsewhere, selection)
    if selection and not isinstance(named, Prefix):
        raise usage_error("--glob, --suffix and --modified-since select objects under an s3://bucket/prefix/")
    if named is not None:
        return _referenced(named, job)
    if elsewhere:
        raise usage_error("files here and images elsewhere are submitted as separate jobs")
    if any(_is_manifest(source) for source in here):
        return _manifest(here, job)
    archives = [source for source in here if source.lower().endswith(ARCHIVES)]
    if archives and len(here) > 1:
        raise usage_error("an archive is submitted alone, one job for each")
    if archives and not Path(archives[0]).is_dir():
        return _upload(Archive(archives[0]), job, Path(archives[0]).name)
    images = find_images([Path(source) for source in here])
    return _upload(Files(images), job, counted(len(images)))


def _upload(source: Files | Archive, job: JobSettings, subject: str) -> Send:
    length = _checked(source, job)

    def send(client: Client) -> Job:
        _meet(client, job)
        with progress(f"sending {subject}", length, "bytes") as advance:
            settings: JobSettings = {**job, "progress": lambda sent, _: advance(sent, "")}
            return client.submit(source, **settings)

    return send


def _manifest(sources: Sequence[str], job: JobSettings) -> Send:
    if len(sources) > 1:
        raise usage_error("a manifest is submitted alone, one job for each")
    if "output" in job:
        raise usage_error("--to and --sidecar do not go with a manifest here; put the manifest into S3")
    source = Manifest(sources[0])
    _checked(source, job)

    def send(client: Client) -> Job:
        _meet(client, job)
        return client.submit(source, **job)

    return send


def _referenced(source: Planned, job: JobSettings) -> Send:
    _checked(source, job)
    return lambda client: client.submit(source, **job)


def _named(addresses: Sequence[str], selection: ObjectFilter | None) -> Images | Prefix | Manifest:
    """Return what addresses mean: one manifest, one prefix, or images."""
    alone = addresses[0] if len(addresses) == 1 and addresses[0].startswith("s3://") else ""
    if alone and _is_manifest(alone) and not selection:
        return Manifest(alone)
    if alone and (selection or not named_like_image(alone)):
        # A folder, as people think of it; without the slash its neighbours would come along.
        return Prefix(alone if alone.endswith("/") else f"{alone}/", selection)
    for address in addresses:
        if address.startswith("s3://") and (address.endswith("/") or address.count("/") < 3):
            raise usage_error(f"{address} names no object; a prefix is submitted alone, one job for each")
    return Images(addresses)


def _is_manifest(name: str) -> bool:
    return Path(name).suffix.lower() in MANIFESTS


def _checked(source: Planned, job: JobSettings) -> int:
    """Return how many bytes a request will have; raise ``CommandFailed`` for files that cannot be read."""
    with in_words():
        body = source.request(job).body
    return body.length if body else 0


def _meet(client: Client, job: JobSettings) -> None:
    """Learn that the server is there, takes the key and has the model before anything is sent."""
    models = [model.name for model in client.models()]
    wanted = job.get("options", {}).get("model")
    if wanted is not None and wanted not in models:
        known = ", ".join(models)
        raise CommandFailed(f"there is no model {wanted!r}; there is: {known} (model_not_available)")
