"""Says what to do where a disk is full or cannot be written to, whichever library noticed it."""

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
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR, errno.EISDIR)
_OS_ERROR = re.compile(r"os error (\d+)")


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn the errors of a full disk, or of a ``folder`` not to be written to, into a ``TrainingError``."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        found = _OS_ERROR.search(str(error))
        number = error.errno if isinstance(error, OSError) and error.errno else int(found[1]) if found else 0
        if number in _REFUSED and _below(folder, error):
            raise TrainingError(
                f"{folder} cannot be written to ({os.strerror(number)}): choose another output folder"
            ) from error
        if number not in _FULL:
            raise
        raise TrainingError(
            f"{folder} cannot take more ({os.strerror(number)}): make room and run the same command again; "
            "it goes on where it stopped"
        ) from error


def _below(folder: Path, error: Exception) -> bool:
    # What else is read meanwhile, such as photos, is not the folder's fault.
    name = error.filename if isinstance(error, OSError) else str(folder)
    path = Path(os.fsdecode(name)) if name else None
    return path is not None and (path.is_relative_to(folder) or folder.is_relative_to(path))


def reserve(path: Path, size: int) -> None:
    """Take the space of a memory-mapped file, because a full disk found later would kill the process."""
    if not hasattr(os, "posix_fallocate"):
        return  # macOS: its file systems refuse such a file when it is made
    with path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, size)
