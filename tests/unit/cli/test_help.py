"""Help, completion, and the last words of a command that the machine keeps from ending well."""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import typer.main

from cli.console import CommandFailed
from cli.endings import ending
from cli.examples import EXAMPLES
from cli.main import app
from cli.places import Places
from tests.e2e.cli.commands import command, environment
from tests.unit.cli.conftest import Run


def _commands(group: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    for name, one in group.commands.items():
        if hasattr(one, "commands"):
            yield from _commands(one, (*words, name))
        if not hasattr(one, "commands") or one.invoke_without_command:
            yield " ".join((*words, name)), one


COMMANDS = dict(_commands(typer.main.get_command(app)))


def test_every_command_has_examples_that_it_takes(run: Run, tmp_path: Path) -> None:
    assert set(EXAMPLES) == set(COMMANDS)
    for name, lines in EXAMPLES.items():
        for line in lines:
            words = shlex.split(line.rpartition("| ")[2])
            assert words[: len(name.split()) + 1] == ["captionfleet", *name.split()], line
            # Parsed as it would be, but not run.
            COMMANDS[name].make_context(name, words[len(name.split()) + 1 :])


def test_help_ends_with_the_examples(run: Run) -> None:
    shown = run("keys", "create", "--help")
    assert shown.status == 0
    assert "captionfleet keys create --owner ada" in shown.output


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_the_shell_completes_commands_options_and_values(tmp_path: Path) -> None:
    script = """
        set -eu
        eval "$(captionfleet --show-completion)"
        complete -p captionfleet >/dev/null
        for typed in "captionfleet capt" "captionfleet caption --wri" "captionfleet caption --sidecar x"; do
            COMP_WORDS=($typed) COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
            _captionfleet_completion captionfleet
            echo "${COMPREPLY[@]}"
        done
    """
    path = os.pathsep.join((str(Path(command()).parent), os.environ["PATH"]))
    # Typer looks which shell called it; this says so where processes cannot be seen.
    ran = subprocess.run(
        ["bash", "-c", script],
        env=environment(tmp_path, PATH=path, SHELL="/bin/bash"),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert ran.stdout.split() == ["caption", "--write-metadata", "xmp"]


def _run(tmp_path: Path, code: str, stdout: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, "--help"],
        env=environment(tmp_path),
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )


MAIN = "from cli.main import main; main()"


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux'")
def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        ran = _run(tmp_path, MAIN, full.fileno())
    assert ran.returncode == 1
    assert ran.stderr.startswith(
        "captionfleet: error: no space left on device; free some space, or let TMPDIR"
    )
    assert ran.stderr.count("\n") == 1


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    ran = _run(tmp_path, MAIN, writer)
    os.close(writer)
    assert (ran.returncode, ran.stderr) == (1, "")


def test_a_python_that_is_too_old_is_one_line(tmp_path: Path) -> None:
    ran = _run(tmp_path, f"import sys; sys.version_info = (3, 10, 4); {MAIN}", subprocess.PIPE)
    assert ran.returncode == 1
    assert ran.stderr.startswith(
        "captionfleet: error: Captionfleet needs Python 3.11 or newer; this is 3.10 at "
    )
    assert ran.stderr.count("\n") == 1


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.EMFILE, errno.ENOENT])
def test_what_the_system_refuses_is_one_line(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    def refused() -> None:
        raise OSError(number, os.strerror(number), "/photos")

    assert ending(refused) == 1
    complaint = capsys.readouterr().err
    assert complaint.startswith(f"captionfleet: error: /photos: {os.strerror(number).lower()}; ")
    assert complaint.count("\n") == 1


def test_a_mistake_of_ours_keeps_its_traceback() -> None:
    def wrong() -> None:
        raise OSError(errno.EINVAL, "ours")

    with pytest.raises(OSError, match="ours"):
        ending(wrong)


@contextmanager
def nobody() -> Iterator[None]:
    """Be nobody where the tests run as root, whom the file system refuses nothing."""
    if os.getuid() != 0:
        yield
        return
    os.setresuid(65534, 65534, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)


def test_places_without_write_permission_are_refused_before_the_work() -> None:
    # Not in pytest's own folder, which nobody may not enter.
    with TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        locked = Path(name) / "locked"
        locked.mkdir(mode=0o555)
        for places in (Places(sidecar="txt"), Places(locked / "x.jsonl")):
            with nobody(), pytest.raises(CommandFailed, match=r"locked.* permission denied") as caught:
                places.check([locked / "a.jpg"])
            assert caught.value.status == 2
