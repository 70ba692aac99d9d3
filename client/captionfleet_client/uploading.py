"""Files sent one by one to presigned addresses, several at a time, each only once."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from captionfleet_client.connection import Connection
from captionfleet_client.errors import AccessDenied, UnexpectedAnswer, UnreadableFile
from captionfleet_client.multipart import UNKNOWN, content_type
from captionfleet_client.requests import Progress, Request, file_body, json_body, readable_size
from captionfleet_client.sources import Direct, Reference
from captionfleet_client.upload_state import LocalFile, UploadState

# Few enough that the last address of a group is still valid when its turn comes on a slow line.
GROUP = 200


class DirectUpload:
    """One upload of many files."""

    def __init__(
        self, connection: Connection, source: Direct, state: UploadState, progress: Progress | None
    ) -> None:
        """Look at every file; raise ``UnreadableFile`` before anything is sent."""
        self._connection = connection
        self._state = state
        self._at_once = source.at_once
        # An upload belongs to one image: a file that is named twice is sent, and captioned, once.
        self._files = [_local(path) for path in dict.fromkeys(map(Path, source.paths))]
        self._meter = _Meter(progress, sum(file.size for file in self._files))

    async def send(self) -> Sequence[Reference]:
        """Send what the server does not have yet; return one reference for each file, in their order."""
        missing = [file for file in self._files if self._state.id_of(file) is None]
        self._meter.moved(self._meter.total - sum(file.size for file in missing))
        for start in range(0, len(missing), GROUP):
            await self._send_group(missing[start : start + GROUP])
        return [{"upload_id": self._state.id_of(file) or ""} for file in self._files]

    async def _send_group(self, files: Sequence[LocalFile]) -> None:
        targets = await self._announce(files)
        calls = [
            lambda file=file, target=target: self._send(file, target)
            for file, target in zip(files, targets, strict=True)
        ]
        await self._connection.transport.together(calls, self._at_once)

    async def _announce(self, files: Sequence[LocalFile]) -> list[dict[str, Any]]:
        described = [
            {"name": file.path.name, "content_type": _image_type(file.path), "size": file.size}
            for file in files
        ]
        # Announced twice and used once does no harm: the server forgets the rest.
        request = Request("POST", "/v1/uploads", body=json_body({"files": described}))
        answer = await self._connection.json(request)
        targets = answer.get("data") if isinstance(answer, dict) else None
        if not isinstance(targets, list) or len(targets) != len(files):
            raise UnexpectedAnswer("the server's answer does not say where to send the files")
        return targets

    async def _send(self, file: LocalFile, target: dict[str, Any]) -> None:
        try:
            await self._put(file, target)
        except AccessDenied:
            # The address may have expired while it waited for its turn; a fresh one has not.
            [target] = await self._announce([file])
            await self._put(file, target)
        self._state.sent(file, target["id"])

    async def _put(self, file: LocalFile, target: dict[str, Any]) -> None:
        headers = dict(target["headers"])
        body = file_body(file.path, headers.pop("Content-Type", UNKNOWN))
        if body.length != file.size:
            raise UnreadableFile(f"{file.path} changed while the upload went on; submit again")
        body = body.watched(self._meter.of_one())
        await self._connection.answer(
            Request(target["method"], target["url"], headers=headers, body=body, keyed=False)
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


def _local(path: Path) -> LocalFile:
    size = readable_size(path)
    if size == 0:
        raise UnreadableFile(f"{path} is empty")
    return LocalFile(path, size, path.stat().st_mtime_ns)


def _image_type(path: Path) -> str:
    kind = content_type(path.name)
    return kind if kind.startswith("image/") else UNKNOWN
