"""Files sent one by one to presigned addresses, several at a time, each only once."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from captionfleet_client.connection import Connection
from captionfleet_client.errors import AccessDenied, UnexpectedAnswer, UnreadableFile
from captionfleet_client.multipart import UNKNOWN, content_type
from captionfleet_client.requests import Progress, Request, as_text, file_body, json_body, readable
from captionfleet_client.sources import Direct, Reference
from captionfleet_client.upload_state import LocalFile, UploadState

# Few enough that the last address of a group is still valid when its turn comes on a slow line.
GROUP = 200


@dataclass(frozen=True)
class _Target:
    """Where and how the server wants one file."""

    id: str
    method: str
    url: str
    headers: dict[str, str]


class DirectUpload:
    """One upload of many files."""

    def __init__(self, connection: Connection, source: Direct, progress: Progress | None) -> None:
        """Look at every file and at the state; raise ``UnreadableFile``, ``UnusableState``."""
        self._connection = connection
        self._at_once = source.at_once
        # An upload belongs to one image: a file that is named twice is sent, and captioned, once.
        self._files = [_local(path) for path in dict.fromkeys(map(Path, source.paths))]
        self._meter = _Meter(progress, sum(file.size for file in self._files))
        self.state = UploadState(Path(source.state) if source.state else None, connection.url)

    async def send(self) -> Sequence[Reference]:
        """Send what the server does not have yet; return one reference for each file, in their order."""
        missing = [file for file in self._files if self.state.id_of(file) is None]
        self._meter.moved(self._meter.total - sum(file.size for file in missing))
        for start in range(0, len(missing), GROUP):
            await self._send_group(missing[start : start + GROUP])
        return [{"upload_id": self.state.id_of(file) or ""} for file in self._files]

    async def _send_group(self, files: Sequence[LocalFile]) -> None:
        targets = await self._announce(files)
        calls = [
            lambda file=file, target=target: self._send(file, target)
            for file, target in zip(files, targets, strict=True)
        ]
        await self._connection.transport.together(calls, self._at_once)

    async def _announce(self, files: Sequence[LocalFile]) -> list[_Target]:
        described = [
            {"name": as_text(file.path.name), "content_type": _image_type(file.path), "size": file.size}
            for file in files
        ]
        # May be repeated: what is announced twice and used once is forgotten by the server. Towards
        # bytes_per_day the sizes count twice, though, as they do where an address has expired.
        request = Request("POST", "/v1/uploads", body=json_body({"files": described}))
        answer = await self._connection.json(request)
        try:
            targets = [_target(entry) for entry in answer["data"]]
        except (AttributeError, KeyError, TypeError, httpx.InvalidURL) as error:
            raise _unexpected() from error
        if len(targets) != len(files):
            raise _unexpected()
        return targets

    async def _send(self, file: LocalFile, target: _Target) -> None:
        try:
            await self._put(file, target)
        except AccessDenied:
            # The address may have expired while it waited for its turn; a fresh one has not.
            [target] = await self._announce([file])
            await self._put(file, target)
        self.state.sent(file, target.id)

    async def _put(self, file: LocalFile, target: _Target) -> None:
        headers = dict(target.headers)
        body = file_body(file.path, headers.pop("Content-Type", UNKNOWN))
        if body.length != file.size:
            raise UnreadableFile(f"{file.path} changed while the upload went on; submit again")
        body = body.watched(self._meter.of_one())
        await self._connection.answer(
            Request(target.method, target.url, headers=headers, body=body, keyed=False)
        )


class _Meter:
    """Adds up what several files have sent."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self.total = total
        self._progress = progress
        self._done = 0
        self._lock = threading.Lock()

    def moved(self, by: int) -> None:
        with self._lock:
            self._done += by
            if self._progress is not None:
                self._progress(self._done, self.total)

    def of_one(self) -> Progress:
        """Return what hears of one file; a repeat takes back what it had sent."""
        before = 0

        def heard(done: int, _: int) -> None:
            nonlocal before
            self.moved(done - before)
            before = done

        return heard


def _target(entry: Mapping[str, Any]) -> _Target:
    url = entry["url"]
    httpx.URL(url)
    return _Target(str(entry["id"]), str(entry["method"]), url, dict(entry["headers"]))


def _unexpected() -> UnexpectedAnswer:
    return UnexpectedAnswer("the server's answer does not say where to send the files")


def _local(path: Path) -> LocalFile:
    found = readable(path)
    if found.st_size == 0:
        raise UnreadableFile(f"{path} is empty")
    return LocalFile(path, found.st_size, found.st_mtime_ns)


def _image_type(path: Path) -> str:
    kind = content_type(path.name)
    return kind if kind.startswith("image/") else UNKNOWN
