"""Running out of memory in torch, on every device, as one error."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from model.errors import ModelOutOfMemory

_NO_MEMORY = re.compile(r"not enough memory|can't allocate memory|out of memory", re.IGNORECASE)


@contextmanager
def memory_errors() -> Iterator[None]:
    """Raise ``ModelOutOfMemory`` for what torch says of a device, or of this machine, that is full."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ModelOutOfMemory("the batch does not fit into the device's memory") from error
    except RuntimeError as error:
        if _NO_MEMORY.search(str(error)):
            raise ModelOutOfMemory("the batch does not fit into memory") from error
        raise
