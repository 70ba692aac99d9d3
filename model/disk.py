"""Says what to do where a disk is full, whichever library noticed it."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from model.errors import TrainingError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_OS_ERROR = re.compile(r"os error (\d+)")


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn the errors of a full disk below ``folder`` into a ``TrainingError``."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        found = _OS_ERROR.search(str(error))
        number = error.errno if isinstance(error, OSError) and error.errno else int(found[1]) if found else 0
        if number not in _FULL:
            raise
        raise TrainingError(
            f"{folder} cannot take more ({os.strerror(number)}): make room and run the same command again; "
            "it goes on where it stopped"
        ) from error


def reserve(path: Path, size: int) -> None:
    """Take the space of a memory-mapped file, because a full disk found later would kill the process."""
    if not hasattr(os, "posix_fallocate"):
        return  # macOS: its file systems refuse such a file when it is made
    with path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, size)
