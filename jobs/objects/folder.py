"""Objects in a local folder: durable before anybody is told so."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from jobs.errors import ItemCode, ItemError, StorageUnavailable

FSYNC_THREADS = 8
PART = ".part"


class FolderObjects:
    """An ``ObjectStore`` in a folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @contextmanager
    def batch(self) -> Iterator[_FolderBatch]:
        """Store several objects; their files reach the disk in parallel."""
        with ThreadPoolExecutor(FSYNC_THREADS, thread_name_prefix="fsync") as pool:
            yield _FolderBatch(self._root, pool)

    def link(self, key: str, target: Path) -> None:
        """Make a file that already lies on this machine an object, without copying it."""
        path = _path(self._root, key)
        with _disk_errors():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(target.resolve())

    def read(self, key: str, limit: int) -> bytes:
        """Return an object's bytes."""
        with self.open(key) as file:
            try:
                data = file.read(limit + 1)
            except OSError as error:
                raise StorageUnavailable(f"the object folder cannot be read: {error}") from error
        if len(data) > limit:
            raise ItemError(ItemCode.IMAGE_TOO_LARGE, f"the image has more than {limit} bytes")
        return data

    def open(self, key: str) -> BinaryIO:
        """Open an object for streaming."""
        try:
            return _path(self._root, key).open("rb")
        except FileNotFoundError as error:
            raise ItemError(ItemCode.OBJECT_NOT_FOUND, "the stored image is gone") from error
        except PermissionError as error:
            raise ItemError(ItemCode.ACCESS_DENIED, "the stored image may not be read") from error
        except OSError as error:
            raise StorageUnavailable(f"the object folder cannot be read: {error}") from error

    def url(self, key: str, content_type: str) -> str | None:
        """Return ``None``: the API serves the bytes."""
        return None

    def upload_url(self, key: str, content_type: str, size: int, seconds: int) -> str | None:
        """Return ``None``: the API takes the bytes."""
        return None

    def sizes(self, prefix: str) -> dict[str, int]:
        """Return the sizes of a folder's objects; what is still being written is left out."""
        folder = _path(self._root, prefix)
        try:
            entries = [entry for entry in folder.iterdir() if entry.is_file() and entry.suffix != PART]
            return {f"{prefix}{entry.name}": entry.stat().st_size for entry in entries}
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise StorageUnavailable(f"{folder} cannot be read: {error}") from error

    def delete(self, keys: Sequence[str]) -> None:
        """Delete files, and their folder with the last of them."""
        with _disk_errors():
            for key in keys:
                path = _path(self._root, key)
                path.unlink(missing_ok=True)
                if path.parent.is_dir() and not any(path.parent.iterdir()):
                    path.parent.rmdir()

    def delete_prefix(self, prefix: str, meanwhile: Callable[[], object] | None = None) -> int:
        """Delete a folder of objects, one by one the folders in it."""
        folder = _path(self._root, prefix)
        deleted = 0
        try:
            for part in [*(path for path in folder.iterdir() if path.is_dir()), folder]:
                deleted += _remove_tree(part)
                if meanwhile is not None:
                    meanwhile()
        except FileNotFoundError:
            return deleted
        except OSError as error:
            raise StorageUnavailable(f"{folder} cannot be deleted: {error}") from error
        return deleted

    def check(self) -> None:
        """Write and remove a small file."""
        probe = self._root / ".probe"
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            probe.write_bytes(b"captionfleet")
            probe.unlink()
        except OSError as error:
            raise StorageUnavailable(f"the object folder cannot be written: {error}") from error


def _remove_tree(tree: Path) -> int:
    """Delete a folder and return how many files it had, also where others delete in it meanwhile."""
    files = 0
    while tree.exists():
        # What is gone already says nothing of the rest.
        with suppress(FileNotFoundError):
            files = max(files, sum(1 for path in tree.rglob("*") if path.is_file()))
            shutil.rmtree(tree)
    return files


def _path(root: Path, key: str) -> Path:
    parts = key.rstrip("/").split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise ItemError(ItemCode.OBJECT_NOT_FOUND, f"{key!r} is not an object key")
    return root.joinpath(*parts)


class _FolderBatch:
    def __init__(self, root: Path, pool: ThreadPoolExecutor) -> None:
        self._root = root
        self._pool = pool
        self._pending: list[Future[None]] = []
        self._folders: set[Path] = set()

    def open(self, key: str, content_type: str) -> _FolderWriter:
        """Begin one object under a temporary name."""
        path = _path(self._root, key)
        with _disk_errors():
            self._make(path.parent)
            return _FolderWriter(self, path)

    def end(self, file: BinaryIO, temporary: Path, path: Path) -> None:
        """Bring a written file to the disk behind the next one's upload."""
        with _disk_errors():
            while len(self._pending) >= 4 * FSYNC_THREADS:
                self._pending.pop(0).result()
        self._pending.append(self._pool.submit(_settle, file, temporary, path))

    def flush(self) -> None:
        """Wait for all files, then make their names durable too."""
        with _disk_errors():
            while self._pending:
                self._pending.pop(0).result()
            for folder in sorted(self._folders, reverse=True):
                _sync_folder(folder)
            self._folders.clear()

    def _make(self, folder: Path) -> None:
        if folder in self._folders:
            return
        folder.mkdir(parents=True, exist_ok=True)
        while folder != self._root:
            self._folders.add(folder)
            folder = folder.parent
        self._folders.add(self._root)


class _FolderWriter:
    def __init__(self, batch: _FolderBatch, path: Path) -> None:
        self._batch = batch
        self._path = path
        self._temporary = path.with_name(f"{path.name}{PART}")
        self._file: BinaryIO = self._temporary.open("wb", buffering=0)

    def write(self, data: bytes) -> None:
        """Append bytes."""
        with _disk_errors():
            view = memoryview(data)
            while view:
                view = view[self._file.write(view) :]

    def close(self) -> None:
        """End the object."""
        self._batch.end(self._file, self._temporary, self._path)

    def discard(self) -> None:
        """Forget what was written."""
        self._file.close()
        self._temporary.unlink(missing_ok=True)


def _settle(file: BinaryIO, temporary: Path, path: Path) -> None:
    with file:
        os.fsync(file.fileno())
    temporary.replace(path)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageUnavailable(f"the object folder cannot be written: {error}") from error
