"""Jobs from archives: each image of an archive becomes an object and an item, a few hundred at a time."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator

from jobs.archives import Member, read_members
from jobs.errors import CaptionfleetError
from jobs.expansion import Slice
from jobs.image_types import HEAD_BYTES, sniff
from jobs.objects import ObjectStore, UploadBatch, image_key, source_prefix
from jobs.objects.segments import SegmentedFile
from jobs.store.bulk import NewItem
from jobs.store.expansions import Expansion
from jobs.store.jobs import UPLOAD

KIND = "archive"
SLICE_ITEMS = 500
SLICE_BYTES = 128 * 1024 * 1024
SLICE_S = 5.0


def archive_prefix(job_id: str) -> str:
    """Prefix of the segments of a job's archive."""
    return f"{source_prefix(job_id)}archive/"


class ArchiveSource:
    """An ``ExpansionSource``: an archive that came with the request."""

    own = True

    def __init__(self, objects: ObjectStore, max_image_bytes: int) -> None:
        self._objects = objects
        self._limit = max_image_bytes

    def slices(self, expansion: Expansion) -> Iterator[Slice]:
        """Yield stored images; raises ``RequestError`` where the archive is damaged or a bomb."""
        size, kind = expansion.parameters["size"], expansion.parameters["kind"]
        file = SegmentedFile(self._objects, archive_prefix(expansion.job_id), size)
        reading = _Reading(read_members(file, kind, size, expansion.cursor, self._limit))
        position = expansion.position
        while (member := reading.next()) is not None:
            found = _Found(expansion.job_id, position)
            # What cannot be stored now is stored later: only what the store has may be passed.
            with self._objects.batch() as batch:
                while member is not None:
                    found.take(member, batch)
                    member = None if found.enough else reading.next()
                batch.flush()
            position += len(found.items)
            yield Slice(found.items, found.cursor)
        if reading.failure is not None:
            raise reading.failure


class _Reading:
    """The members of an archive up to its end, or to what cannot be read: that is ``failure``."""

    def __init__(self, members: Iterator[Member]) -> None:
        self._members = members
        self.failure: CaptionfleetError | None = None

    def next(self) -> Member | None:
        """Return the next member; ``None`` where there is none."""
        if self.failure is not None:
            return None
        try:
            return next(self._members, None)
        except CaptionfleetError as error:
            self.failure = error
            return None


class _Found:
    """The items of one slice."""

    def __init__(self, job_id: str, position: int) -> None:
        self._job_id = job_id
        self._first = position
        self._bytes = 0
        self._until = time.monotonic() + SLICE_S
        self.items: list[NewItem] = []
        self.cursor: list[int] | None = None

    @property
    def enough(self) -> bool:
        """Whether the slice is to be written now."""
        full = len(self.items) >= SLICE_ITEMS or self._bytes >= SLICE_BYTES
        return full or time.monotonic() > self._until

    def take(self, member: Member, batch: UploadBatch) -> None:
        """Store a member."""
        if member.path:
            self._add(member, batch)
        self.cursor = member.cursor

    def _add(self, member: Member, batch: UploadBatch) -> None:
        name = member.path.rpartition("/")[2]
        if member.error is not None:
            self.items.append(NewItem(name, member.path, UPLOAD, error=member.error))
            return
        key, kind = image_key(self._job_id, self._first + len(self.items)), sniff(member.data[:HEAD_BYTES])
        writer = batch.open(key, kind)
        writer.write(member.data)
        writer.close()
        self._bytes += len(member.data)
        sha256 = hashlib.sha256(member.data).hexdigest()
        self.items.append(NewItem(name, member.path, UPLOAD, key, kind, sha256))
