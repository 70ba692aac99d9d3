"""Chunks run side by side, except one that is suspected of killing its process: that one runs alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Exclusion:
    """Any number share the process, or one has it alone; who waits to be alone goes first."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._sharing = 0
        self._waiting_alone = 0
        self._alone = False
        self._closed = False

    @contextmanager
    def shared(self) -> Iterator[bool]:
        """Join the others once nobody is alone or waits to be; false (and no part in it) after ``close``."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or not (self._alone or self._waiting_alone))
            joined = not self._closed
            self._sharing += joined
        try:
            yield joined
        finally:
            with self._changed:
                self._sharing -= joined
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Wait until nobody else is in, and keep it so; false (and no part in it) after ``close``."""
        with self._changed:
            self._waiting_alone += 1
            try:
                self._changed.wait_for(lambda: self._closed or not (self._alone or self._sharing))
            finally:
                self._waiting_alone -= 1
            entered = not self._closed
            self._alone |= entered
            self._changed.notify_all()
        try:
            yield entered
        finally:
            with self._changed:
                self._alone &= not entered
                self._changed.notify_all()

    def close(self) -> None:
        """Let nobody in any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
