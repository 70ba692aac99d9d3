"""How commands end: every expected failure is one line on standard error and an exit status."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer

from cli.console import CommandFailed, say

INTERRUPTED = 130


def ending(call: Callable[[], Any]) -> int:
    """Run a command; return 0 done, 1 failed, 2 called or set up wrongly, 130 interrupted."""
    try:
        status = call()
    except typer.TyperException as error:
        return _usage(error)
    except CommandFailed as error:
        return _failed(error.message, error.status)
    except KeyboardInterrupt:
        status = INTERRUPTED
    except Exception as error:
        expected = _expected(error)
        if expected is None:
            raise
        return _failed(str(error), expected)
    if status == INTERRUPTED:
        say("captionfleet: interrupted")
    return status if isinstance(status, int) else 0


def _usage(error: typer.TyperException) -> int:
    message = error.format_message()
    if type(error).__name__ == "NoArgsIsHelpError":
        print(message)
        return 2
    return _failed(message, error.exit_code)


def _expected(error: Exception) -> int | None:
    """Return the exit status of an error the product raises on purpose."""
    from jobs.errors import CaptionfleetError, StartupError
    from model.errors import CheckpointInvalid, ModelError

    if isinstance(error, StartupError | CheckpointInvalid):
        return 2
    return 1 if isinstance(error, CaptionfleetError | ModelError) else None


def _failed(message: str, status: int) -> int:
    say(f"captionfleet: error: {' '.join(message.split())}")
    return status
