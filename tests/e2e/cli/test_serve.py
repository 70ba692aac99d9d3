"""`captionfleet serve`: what it keeps, how it ends, and why it does not start."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.cli.commands import Server, captionfleet, command, environment
from tests.pictures import jpeg_bytes
from tests.processes import reserve_port, scratch_folder, wait_until

# Five chunks, of which the one worker thread has one in hand.
IMAGES = 160


def _submit(server: Server, images: int) -> str:
    files = [("images", (f"{number:04}.jpg", jpeg_bytes(number), "image/jpeg")) for number in range(images)]
    answer = httpx.post(f"{server.url}/v1/jobs", files=files, timeout=60).raise_for_status()
    return str(answer.json()["id"])


def _done(server: Server, job_id: str) -> int:
    counts = httpx.get(f"{server.url}/v1/jobs/{job_id}", timeout=30).raise_for_status().json()["counts"]
    return int(counts["succeeded"] + counts["failed"])


def _items(server: Server, job_id: str) -> list[dict[str, Any]]:
    answer = httpx.get(f"{server.url}/v1/jobs/{job_id}/results", timeout=30).raise_for_status()
    return [json.loads(line) for line in answer.text.splitlines()]


def _leased(server: Server) -> int:
    with sqlite3.connect(server.data / "captionfleet.db") as database:
        return int(database.execute("select count(*) from chunks where state = 'leased'").fetchone()[0])


def test_a_job_outlives_a_stop_and_a_kill() -> None:
    server = Server(CAPTIONFLEET_CONCURRENCY="1")
    server.start()
    job_id = _submit(server, IMAGES)
    wait_until(lambda: _done(server, job_id) > 0, 60, "the first captions")
    assert server.process.stop(signal.SIGTERM, timeout=40) == 0
    assert "Traceback" not in server.process.output
    assert _leased(server) == 0

    server.start()
    before = _done(server, job_id)
    assert 0 < before < IMAGES
    wait_until(lambda: _leased(server) > 0, 60, "work going on")
    # Only the process that was started by hand: what it forked must not keep the folder to itself.
    server.process.send(signal.SIGKILL)
    server.process.wait()

    server.start()
    assert _done(server, job_id) < IMAGES
    wait_until(lambda: _done(server, job_id) == IMAGES, 120, "all captions")
    items = _items(server, job_id)
    assert [item["position"] for item in items] == list(range(IMAGES))
    assert all(item["caption"] for item in items)

    assert f"Captionfleet: {server.url}  (data in {server.data}; Ctrl-C stops)" in server.process.output
    # Ctrl-C and a closed terminal reach the whole process group.
    os.killpg(server.process.pid, signal.SIGINT)
    assert server.process.wait(40) == 0
    assert "Traceback" not in server.process.output


def test_a_folder_in_use(server: Server) -> None:
    port = str(reserve_port())
    ran = captionfleet(server.folder, "serve", "--port", port, "--data-dir", server.data)
    assert ran.status == 2
    last = ran.complaints.splitlines()[-1]
    # The one that was started, not a child of it: that one would come back.
    held = f"CAPTIONFLEET_DATA_DIR={server.data} is in use by process {server.process.pid}; stop it or choose"
    assert last.startswith(f"captionfleet: error: {held} ")


def _unwritable(folder: Path) -> Path:
    """Return a folder in which this user, be it root, can make nothing."""
    if os.geteuid() == 0:
        return Path("/sys" if sys.platform == "linux" else "/System")
    folder.chmod(0o555)
    return folder


@pytest.mark.parametrize("trouble", ["a file", "no permission"])
def test_a_data_folder_that_cannot_be(tmp_path: Path, trouble: str) -> None:
    data = tmp_path / "data"
    if trouble == "a file":
        data.write_text("")
    else:
        data = _unwritable(scratch_folder("locked")) / "captionfleet"
    ran = captionfleet(tmp_path, "serve", "--port", str(reserve_port()), "--data-dir", data)
    assert ran.status == 2
    assert ran.complaints.splitlines()[-1].startswith("captionfleet: error: CAPTIONFLEET_DATA_DIR: ")
    assert str(data) in ran.complaints


def test_a_disk_that_takes_nothing(tmp_path: Path) -> None:
    # No file may grow beyond a kilobyte: the database cannot, as on a full disk.
    script = f"ulimit -f 1; exec {command()} serve --port {reserve_port()}"
    ran = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True
    )
    assert ran.returncode == 2, ran.stderr
    last = ran.stderr.splitlines()[-1]
    assert last.startswith("captionfleet: error: CAPTIONFLEET_DATA_DIR: data cannot be used: "), ran.stderr
    assert last.endswith("free some space on its disk, or choose another folder (`serve --data-dir FOLDER`)")
    assert "Traceback" not in ran.stderr


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    port = str(reserve_port())
    ran = captionfleet(tmp_path, "serve", "--port", port, CAPTIONFLEET_MODELS="mine=no/such/folder")
    assert ran.status == 2
    assert "captionfleet: error: no model 'no/such/folder'" in ran.complaints
    assert "Traceback" not in ran.complaints


def test_other_machines_are_served_only_with_a_key() -> None:
    server = Server("--host", "0.0.0.0")
    server.process.start()
    assert server.process.wait(60) == 2
    assert "make one with `captionfleet keys create --owner NAME`" in server.process.output

    folder = {"CAPTIONFLEET_DATA_DIR": str(server.data)}
    made = captionfleet(server.folder, "keys", "create", "--owner", "ada", **folder)
    assert made.status == 0, made.complaints
    server.start()
    models, key = f"{server.url}/v1/models", made.output.strip()
    assert httpx.get(models).status_code == 401
    assert server.run("jobs").error.endswith(" (unauthorized)")
    assert server.run("jobs", CAPTIONFLEET_API_KEY=key).status == 0

    assert captionfleet(server.folder, "keys", "revoke", key.split("_")[2], **folder).status == 0
    header = {"Authorization": f"Bearer {key}"}
    wait_until(lambda: httpx.get(models, headers=header).status_code == 401, 20, "the revocation")
    os.killpg(server.process.pid, signal.SIGHUP)
    assert server.process.wait(40) == 0


def test_a_first_key_is_made_once_where_one_is_needed() -> None:
    server = Server("--host", "0.0.0.0", "--first-key")
    server.start()
    (key,) = re.findall(r"The first API key, shown this once: (\S+)", server.process.output)
    assert server.run("jobs", CAPTIONFLEET_API_KEY=key).status == 0
    assert server.process.stop(timeout=40) == 0
    server.start()
    assert len(re.findall("first API key", server.process.output)) == 1
    assert server.process.stop(timeout=40) == 0
