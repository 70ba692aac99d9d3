"""What the benchmarks measure is what they say they do."""

from __future__ import annotations

import json
from collections import Counter
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from benchmarks.faults import Account, Fleet, account, submit
from benchmarks.peers import same_sizes
from model.config import NetworkConfig, read_config
from tests.client.conftest import job_json
from tests.pictures import jpeg_bytes
from tests.web import Came, answer, serving


def test_a_folder_that_is_sent_again_is_captioned_again(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").write_bytes(jpeg_bytes(1))

    def accept(handler: BaseHTTPRequestHandler, _: Came) -> None:
        answer(handler, 202, json.dumps(job_json(id="job_7")).encode(), Content_Type="application/json")

    with serving(accept) as web:
        assert submit(Fleet(web.url(""), "cf_secret", {}, [], "", None), tmp_path) == "job_7"
    assert json.dumps({"options": {"use_cache": False}}).encode() in web.came[0].body


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
