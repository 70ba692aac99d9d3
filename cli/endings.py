"""How commands end: every expected failure is one line on standard error and an exit status."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from typing import Any

import typer

from cli.console import CommandFailed, say

INTERRUPTED = 130
_DISK = "free some space, or let TMPDIR, CAPTIONFLEET_DATA_DIR or the output lie on another disk"
_MAY = "this user may not do that there"
_MENDS = {
    errno.ENOSPC: _DISK,
    errno.EDQUOT: _DISK,
    errno.EACCES: _MAY,
    errno.EPERM: _MAY,
    errno.EROFS: "choose a place that can be written",
    errno.ENOENT: "see that it is there, and that TMPDIR names a folder that can be written",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.ENFILE: "raise the limit on open files (ulimit -n)",
}
"""What to do about an error of the operating system that no command has met with words of its own."""


def ending(call: Callable[[], Any]) -> int:
    """Run a command; return 0 done, 1 failed, 2 called or set up wrongly, 130 interrupted."""
    try:
        status = call()
        # Not at the interpreter's end, where an error could no longer be told.
        sys.stdout.flush()
    except typer.TyperException as error:
        return _usage(error)
    except CommandFailed as error:
        return _failed(error.message, error.status)
    except BrokenPipeError:
        # Whoever reads the output has had enough (`| head`); nor is there one for what is left of it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        status = INTERRUPTED
    except Exception as error:
        expected = _expected(error)
        if expected is None:
            raise
        return _failed(*expected)
    if status == INTERRUPTED:
        say("captionfleet: interrupted")
    return status if isinstance(status, int) else 0


def _usage(error: typer.TyperException) -> int:
    message = error.format_message()
    if type(error).__name__ == "NoArgsIsHelpError":
        print(message)
        return 2
    return _failed(message, error.exit_code)


def _expected(error: Exception) -> tuple[str, int] | None:
    """Return message and exit status for what the product raises on purpose, and for the machine's limits."""
    from jobs.errors import CaptionfleetError, StartupError
    from model.errors import CheckpointInvalid, ModelError

    if isinstance(error, StartupError | CheckpointInvalid):
        return str(error), 2
    if isinstance(error, CaptionfleetError | ModelError):
        return str(error), 1
    if isinstance(error, OSError) and error.errno in _MENDS:
        # Of two files, as in copying, the second one is written.
        name = error.filename2 or error.filename
        where = f"{name}: " if name else ""
        return f"{where}{(error.strerror or str(error)).lower()}; {_MENDS[error.errno]}", 1
    return None


def _failed(message: str, status: int) -> int:
    say(f"captionfleet: error: {' '.join(message.split())}")
    return status
