"""The real command as a subprocess, and a server that it runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import httpx

from tests.processes import Process, reserve_port, scratch_folder


def command() -> str:
    """Return the path of the installed command."""
    found = shutil.which("captionfleet", path=str(Path(sys.executable).parent))
    assert found, "the command captionfleet is not installed beside this Python"
    return found


def environment(folder: Path, **extra: str) -> dict[str, str]:
    """This environment without any setting of ours; temporary files go to ``folder``."""
    ours = ("CAPTIONFLEET_", "DATABASE_URL", "REDIS_URL", "AWS_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return kept | {"TMPDIR": str(folder), "COLUMNS": "200"} | extra


class Ran:
    """How a command ended."""

    def __init__(self, status: int, output: str, complaints: str) -> None:
        self.status = status
        self.output = output
        self.complaints = complaints

    @property
    def error(self) -> str:
        """The one line the command failed with; fails if there are more."""
        lines = self.complaints.splitlines()
        assert len(lines) == 1, self.complaints
        assert lines[0].startswith("captionfleet: error: "), self.complaints
        return lines[0].removeprefix("captionfleet: error: ")


def captionfleet(folder: Path, *arguments: str | Path, **settings: str) -> Ran:
    """Run a command in ``folder`` to its end."""
    run = subprocess.run(
        [command(), *map(str, arguments)],
        cwd=folder,
        env=environment(folder, **settings),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return Ran(run.returncode, run.stdout, run.stderr)


class Server:
    """`captionfleet serve` on a port of its own; it can be killed and started again."""

    def __init__(self, *arguments: str, **settings: str) -> None:
        self.port = reserve_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.folder = scratch_folder("serve")
        self.data = self.folder / "data"
        self.process = Process(
            [command(), "serve", "--port", str(self.port), "--data-dir", str(self.data), *arguments],
            environment=environment(self.folder, **settings),
            folder=self.folder,
        )

    def start(self) -> None:
        """Start the server and wait until it answers."""
        self.process.start(self.answers, timeout=90)

    def answers(self) -> bool:
        """Whether the server can take jobs now."""
        try:
            return httpx.get(f"{self.url}/readyz", timeout=5).is_success
        except httpx.TransportError:
            return False

    def run(self, *arguments: str | Path, **settings: str) -> Ran:
        """Run a client command against this server."""
        return captionfleet(self.folder, *arguments, CAPTIONFLEET_URL=self.url, **settings)
