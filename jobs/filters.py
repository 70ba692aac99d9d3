"""Which objects of a prefix are a job's images."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from fnmatch import fnmatchcase

from jobs.image_types import named_like_image
from jobs.records import ObjectFilter


class Selection:
    """A job's ``filter``, applied to the objects under its prefix."""

    def __init__(self, wanted: ObjectFilter) -> None:
        self._wanted = wanted
        self._suffixes = tuple(suffix.lower() for suffix in wanted.suffixes or ())
        self._glob = wanted.glob.split("/") if wanted.glob else None

    def takes(self, path: str, size: int, modified: datetime) -> bool:
        """Whether an object is wanted; ``path`` is its key behind the prefix's last slash."""
        wanted = self._wanted
        if path.endswith("/") or not path:
            return False  # What consoles make to show a folder.
        if wanted.min_size is not None and size < wanted.min_size:
            return False
        if wanted.max_size is not None and size > wanted.max_size:
            return False
        if wanted.modified_since is not None and modified < wanted.modified_since:
            return False
        return self._named(path)

    def _named(self, path: str) -> bool:
        if self._suffixes and not path.lower().endswith(self._suffixes):
            return False
        if self._glob is not None:
            return matches(path.split("/"), self._glob)
        return bool(self._suffixes) or named_like_image(path)


def matches(path: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether the parts of a path match those of a glob; ``**`` stands for any number of parts.

    Time grows with the product of the two lengths, whatever a client writes.
    """
    reached = [True] + [False] * len(path)
    for part in pattern:
        if part == "**":
            any_before = False
            for index, here in enumerate(reached):
                any_before = any_before or here
                reached[index] = any_before
        else:
            steps = zip(reached, path, strict=False)
            reached = [False, *(here and fnmatchcase(name, part) for here, name in steps)]
    return reached[-1]
