"""The `captionfleet` command: its commands, and how it ends."""

from __future__ import annotations

import importlib.metadata
import signal
import sys
from collections.abc import Callable
from typing import Annotated, Any, NoReturn

import typer

from cli import (
    caption,
    client,
    demo,
    doctor,
    events,
    keys,
    models,
    operate,
    rules,
    stuck,
    training,
    watch,
    webhooks,
)
from cli.endings import ending
from cli.examples import epilog

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

PANELS: dict[str, dict[str, Callable[..., None]]] = {
    "On this machine": {
        "serve": operate.serve,
        "caption": caption.caption,
        "watch": watch.watch,
        "demo": demo.demo,
    },
    "Against a server (CAPTIONFLEET_URL)": {
        "submit": client.submit,
        "jobs": client.jobs,
        "status": client.status,
        "results": client.results,
        "cancel": client.cancel,
        "retry": client.retry,
        "delete": client.delete,
    },
    "Distributed mode": {"api": operate.api, "worker": operate.worker},
    "Operation": {
        "migrate": operate.migrate,
        "models": models.models,
        "doctor": doctor.doctor,
        "stuck": stuck.stuck,
        "redrive": stuck.redrive,
    },
    "The model": {"train": training.train, "evaluate": training.evaluate, "export": training.export},
}
GROUPS: dict[str, tuple[str, typer.Typer]] = {
    "events": ("Distributed mode", events.app),
    "keys": ("Operation", keys.app),
    "rules": ("Operation", rules.app),
    "webhooks": ("Against a server (CAPTIONFLEET_URL)", webhooks.app),
}
for panel, commands in PANELS.items():
    for name, command in commands.items():
        app.command(name, rich_help_panel=panel, epilog=epilog(name))(command)
for name, (panel, group) in GROUPS.items():
    app.add_typer(group, name=name, rich_help_panel=panel, epilog=epilog(name))
    for info in group.registered_commands:
        assert info.callback is not None, name
        info.epilog = epilog(f"{name} {info.name or info.callback.__name__}")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"captionfleet {importlib.metadata.version('captionfleet')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Caption image collections of any size."""


def main() -> NoReturn:
    """Run the command and exit with its status."""
    signal.signal(signal.SIGTERM, _terminate)
    sys.exit(ending(lambda: app(sys.argv[1:], prog_name="captionfleet", standalone_mode=False)))


def _terminate(number: int, _frame: Any) -> NoReturn:
    # Leaving by an exception lets temporary folders and child processes be cleaned up.
    sys.exit(128 + number)


if __name__ == "__main__":
    main()
