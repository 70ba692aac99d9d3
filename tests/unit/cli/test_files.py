"""Which files a user means."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path
from typing import Any

import pytest

from cli.console import CommandFailed
from cli.files import find_images


def _touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def test_folders_give_images_in_order_files_come_as_named(tmp_path: Path) -> None:
    _touch(
        tmp_path, "b/2.JPG", "b/10.heic", "b/a/x.webp", "b/._2.jpg", "b/.cache/y.jpg", "b/notes.txt", "odd"
    )
    (tmp_path / "b" / "folder.jpg").mkdir()
    (tmp_path / "b" / "dangling.jpg").symlink_to(tmp_path / "nowhere")
    (tmp_path / "b" / "linked.png").symlink_to(tmp_path / "odd")
    found = find_images([tmp_path / "odd", tmp_path / "b", tmp_path / "b" / "2.JPG"])
    names = [path.relative_to(tmp_path).as_posix() for path in found]
    assert names == ["odd", "b/10.heic", "b/2.JPG", "b/linked.png", "b/a/x.webp"]


def test_a_folder_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _touch(tmp_path, "a/1.jpg", "locked/2.jpg")
    listed = os.scandir

    def scandir(folder: str) -> Any:
        # Root, who may run this test, is refused nothing by the file system itself.
        if Path(folder).name == "locked":
            raise PermissionError(errno.EACCES, "Permission denied", folder)
        return listed(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(CommandFailed, match=r"locked cannot be read: permission denied") as caught:
        find_images([tmp_path])
    assert caught.value.status == 2


def test_patterns_that_the_shell_has_left(tmp_path: Path) -> None:
    _touch(tmp_path, "a/1.jpg", "a/b/2.png", "a/notes.txt", "c.jpg", "odd[1].jpg")
    found = find_images([tmp_path / "a" / "**" / "*", tmp_path / "?.jpg", tmp_path / "odd[1].jpg"])
    names = [path.relative_to(tmp_path).as_posix() for path in found]
    assert names == ["a/1.jpg", "a/b/2.png", "c.jpg", "odd[1].jpg"]
    with pytest.raises(CommandFailed, match=r"\*\.gif does not exist"):
        find_images([tmp_path / "*.gif"])


@pytest.mark.parametrize("separator", [b"\n", b"\0"])
def test_a_list_on_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, separator: bytes) -> None:
    _touch(tmp_path, "a b.jpg", "c/d.png", "odd")
    names = [os.fsencode(tmp_path / name) for name in ("odd", "c", "a b.jpg")]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(separator.join(names) + separator)))
    found = [path.relative_to(tmp_path).as_posix() for path in find_images([Path("-")])]
    assert found == ["odd", "c/d.png", "a b.jpg"]
