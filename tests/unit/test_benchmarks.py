"""What the benchmarks measure is what they say they do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from benchmarks.faults import Account, Fleet, account, submit
from benchmarks.peers import same_sizes
from model.config import NetworkConfig, read_config
from tests.client.conftest import job_json
from tests.conftest import ROOT
from tests.pictures import jpeg_bytes
from tests.web import Came, answer, serving


def test_a_folder_that_is_sent_again_is_captioned_again(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").write_bytes(jpeg_bytes(1))

    def accept(handler: BaseHTTPRequestHandler, _: Came) -> None:
        answer(handler, 202, json.dumps(job_json(id="job_7")).encode(), Content_Type="application/json")

    with serving(accept) as web:
        assert submit(Fleet(web.url(""), "cf_secret", {}, [], "", None), tmp_path) == "job_7"
    assert json.dumps({"options": {"use_cache": False}}).encode() in web.came[0].body


# Locust replaces parts of Python's library where it is imported, so that this has a process of its own.
UPLOADS = """
import json, random
from benchmarks.load_clients import Bulk, Follower, Reader

class Sent(Exception):
    pass

def used_cache(kind, begin):
    def call(*words, files, **options):
        raise Sent(json.loads(files[0][1][1]).get("options", {}).get("use_cache", True))

    client = object.__new__(kind)
    client.call = call
    try:
        begin(client)
    except Sent as sent:
        return sent.args[0]

random.seed(0)
bulk = [used_cache(Bulk, Bulk.job) for _ in range(400)]
print(sum(bulk), used_cache(Follower, Follower.follow), used_cache(Reader, Reader.read))
"""


def _item(position: int, **changed: Any) -> dict[str, Any]:
    item = {"position": position, "status": "succeeded", "caption": "a dog", "error": None, "attempts": 1}
    return item | changed


def test_images_recorded_twice_begun_twice_and_lost_are_counted_apart() -> None:
    items = [_item(0), _item(1, attempts=2), _item(2), _item(3, status="queued", caption=None)]
    assert account(items, Counter({0: 1, 1: 1, 2: 2}), 5) == Account(once=2, again=1, missing=2)


def test_the_plain_network_has_the_sizes_of_the_one_that_ships() -> None:
    _, network = same_sizes("small")
    sizes = read_config("small").network
    assert isinstance(sizes, NetworkConfig)
    shape = vars(network.shape)
    assert {name: shape[name] for name in vars(sizes) if name != "dropout"} == {
        name: size for name, size in vars(sizes).items() if name != "dropout"
    }


def test_few_of_the_images_under_load_may_come_from_the_cache(tmp_path: Path) -> None:
    for number in range(60):
        (tmp_path / f"{number}.jpg").write_bytes(b"a photo")
    given = {"LOAD_KEYS": "cf_secret", "LOAD_PHOTOS": str(tmp_path), "LOAD_STATS": str(tmp_path / "stats")}
    ran = subprocess.run(
        [sys.executable, "-c", UPLOADS],
        cwd=ROOT, env=os.environ | given, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    bulk, *others = ran.stdout.split()
    assert 60 < int(bulk) < 140
    assert others == ["False", "False"]
