"""Long streams kept as objects of equal size: written without a temporary file, read again from anywhere."""

from __future__ import annotations

from collections import OrderedDict

from jobs.objects import ObjectStore, ObjectWriter, UploadBatch

SEGMENT_BYTES = 16 * 1024 * 1024
IN_MEMORY = 2


def segment_key(prefix: str, number: int) -> str:
    """Key of one segment."""
    return f"{prefix}{number}"


class SegmentWriter:
    """Stores a stream under a prefix; durable after the batch's ``flush``."""

    def __init__(self, batch: UploadBatch, prefix: str) -> None:
        self._batch = batch
        self._prefix = prefix
        self._writer: ObjectWriter | None = None
        self._left = 0
        self._number = 0

    def write(self, block: bytes) -> None:
        """Append bytes."""
        view = memoryview(block)
        while view:
            if self._writer is None:
                key = segment_key(self._prefix, self._number)
                self._writer, self._left = self._batch.open(key, "application/octet-stream"), SEGMENT_BYTES
            self._writer.write(bytes(view[: self._left]))
            written = min(self._left, len(view))
            view, self._left = view[written:], self._left - written
            if self._left == 0:
                self.close()

    def close(self) -> None:
        """End the segment in hand."""
        if self._writer is not None:
            self._writer.close()
            self._writer, self._number = None, self._number + 1

    def discard(self) -> None:
        """Forget the segment in hand."""
        if self._writer is not None:
            self._writer.discard()
            self._writer = None


class SegmentedFile:
    """A stream of ``size`` bytes that a ``SegmentWriter`` stored, as a file to read and seek in."""

    def __init__(self, objects: ObjectStore, prefix: str, size: int) -> None:
        self._objects = objects
        self._prefix = prefix
        self._size = size
        self._at = 0
        self._segments: OrderedDict[int, bytes] = OrderedDict()

    def read(self, size: int = -1) -> bytes:
        """Return so many bytes, fewer only at the end."""
        end = self._size if size < 0 else min(self._size, self._at + size)
        blocks = []
        while self._at < end:
            number, offset = divmod(self._at, SEGMENT_BYTES)
            block = self._segment(number)[offset : offset + end - self._at]
            if not block:
                raise EOFError("a stored segment is shorter than it was")
            blocks.append(block)
            self._at += len(block)
        return b"".join(blocks)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move to an offset from the beginning (0), from here (1) or from the end (2)."""
        self._at = max(0, offset + (0, self._at, self._size)[whence])
        return self._at

    def tell(self) -> int:
        """Return where the next read begins."""
        return self._at

    def seekable(self) -> bool:
        """Whether it can be read in any order: yes."""
        return True

    def _segment(self, number: int) -> bytes:
        if number not in self._segments:
            while len(self._segments) >= IN_MEMORY:
                self._segments.popitem(last=False)
            self._segments[number] = self._objects.read(segment_key(self._prefix, number), SEGMENT_BYTES)
        return self._segments[number]
