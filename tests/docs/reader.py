"""A reader who types what a document says: its commands in order, in one folder, servers beside."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Container, Mapping
from pathlib import Path

import httpx

from tests.e2e.cli.commands import environment
from tests.processes import Process, reserve_port, wait_until

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
Own = str | Callable[[str], str]
# They go on until they are stopped.
SERVERS = ("serve", "api")
LASTING = (*SERVERS, "worker", "events", "watch")
# What readers of documents do not run here, by how a command is written, and why.
ELSEWHERE = {
    r"^make (setup|setup-dev|demo|test)\b": "makes the environment that tests run in, or runs them; "
    "`captionfleet demo` has a test of its own (tests/e2e/cli/test_demo.py)",
    r"^source \.venv/": "tests have the command on their path",
    r"^captionfleet train --images \S+ --captions \S+ --config small\b": "takes hours, and published weights "
    "from the network; tests/unit/model/test_training.py trains the same phases, made small",
    r"\bdocker\b": "needs a Docker engine; `make test-docker` builds the images and runs the stack on one",
    r"^curl -F 'job=": "runs in test_readme.py",
}


def commands(document: Path) -> list[str]:
    """Return the commands of a document's console blocks, continuations joined."""
    blocks = re.findall(r"```console\n(.*?)```", document.read_text(), re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [line[2:].strip() for line in lines if line.startswith("$ ")]


def plain(command: str) -> str:
    """Return a command without the comment behind it."""
    return re.sub(r"\s+#.*", "", command)


def elsewhere(command: str) -> str:
    """Return why readers leave a command out; empty where they do not."""
    return next((why for pattern, why in ELSEWHERE.items() if re.search(pattern, command)), "")


def write_files(document: Path, folder: Path) -> None:
    """Write the blocks of a document that are titled as files."""
    for name, text in re.findall(r'```\w+ title="([^"]+)"\n(.*?)```', document.read_text(), re.DOTALL):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def take_photo(folder: Path, name: str) -> None:
    """Put one of the sample photos into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(EXAMPLES / "photos" / name, folder)


class Reader:
    """Runs commands by bash as one shell would; those that last go on in the background."""

    def __init__(self, folder: Path, replaced: Mapping[str, Own], **settings: str) -> None:
        """``replaced`` is what a reader would write instead: an own address for an example's.

        Or a function that finds it in what the commands so far wrote.
        """
        port = reserve_port()
        self.url = f"http://127.0.0.1:{port}"
        self._folder = folder
        self._replaced = {**replaced, "localhost:8080": f"127.0.0.1:{port}"}
        self._environment = environment(folder, CAPTIONFLEET_PORT=str(port), CAPTIONFLEET_URL=self.url)
        self._environment |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", **settings}
        self._state = folder / ".shell"
        self._state.touch()
        self._lasting: list[Process] = []
        self._all_shown = ""

    def follow(
        self, document: Path, until: Mapping[str, str] | None = None, known: Container[str] = ()
    ) -> dict[str, str]:
        """Run a document's commands, each to a good end, and return what they wrote.

        Those in ``until`` are repeated until their output has that text: what they show takes its time.
        Those in ``known`` are left out: they run elsewhere.
        """
        write_files(document, self._folder)
        return {
            written: self.type(written, (until or {}).get(written, ""))
            for written in commands(document)
            if not elsewhere(written) and plain(written) not in known
        }

    def type(self, written: str, expected: str = "") -> str:
        """Run one command and return what it wrote."""
        shown = self._run(written, expected)
        self._all_shown += shown
        return shown

    def _run(self, written: str, expected: str) -> str:
        command = written
        for example, own in self._replaced.items():
            if example in command:
                command = command.replace(example, own if isinstance(own, str) else own(self._all_shown))
        if name := _lasting(command):
            self._start(name, command)
            return ""
        try:
            return wait_until(lambda: self._shown(command, expected, once=not expected), 120, written)
        except AssertionError as error:
            logs = "\n".join(process.output[-4000:] for process in self._lasting)
            raise AssertionError(f"{error}\n{logs}") from error

    def _shown(self, command: str, expected: str, *, once: bool) -> str | None:
        ran = subprocess.run(
            self._bash(f"{command}\nexport -p > {self._state}"),
            cwd=self._folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )
        if once:
            assert ran.returncode == 0, f"{command}\n{ran.stdout}{ran.stderr}"
        good = ran.returncode == 0 and expected in ran.stdout
        return (ran.stdout or "\n") if good else None

    def _bash(self, script: str) -> list[str]:
        return ["bash", "-c", f"set -aeo pipefail; source {self._state}\n{script}"]

    def _start(self, name: str, command: str) -> None:
        if name in SERVERS:
            # Two of them on one port there cannot be: a reader stops the first.
            self.stop()
        process = Process(
            self._bash(_replacing_the_shell(command)), environment=self._environment, folder=self._folder
        )
        self._lasting.append(process)
        process.start(self._ready if name in SERVERS else None, timeout=90)

    def _ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/healthz", timeout=5).is_success
        except httpx.TransportError:
            return False

    def stop(self) -> None:
        """End what runs in the background."""
        for process in reversed(self._lasting):
            process.stop(timeout=40)
        self._lasting.clear()


def _lasting(command: str) -> str:
    """Return which command that goes on this is, or nothing."""
    words = [word for word in shlex.split(command, comments=True) if "=" not in word]
    return words[1] if words[0] == "captionfleet" and words[1] in LASTING and "replay" not in words else ""


def _replacing_the_shell(command: str) -> str:
    """Return a command that gets signals itself."""
    first = command.index("captionfleet")
    return f"{command[:first]}exec {command[first:]}" if not first else f"exec env {command}"


Make = Callable[..., Reader]
