"""Direct uploads: what is sent, how often, and what an interruption costs."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from captionfleet_client import (
    AccessDenied,
    Client,
    ConnectionFailed,
    Direct,
    InvalidArgument,
    Retries,
    Unavailable,
    UnexpectedAnswer,
    UnreadableFile,
    UnusableState,
)
from jobs.objects.s3 import S3, S3Objects
from tests import servers
from tests.client.conftest import Connect, Script, job_json, ok
from tests.web import Came, Web, answer, serving


@dataclass
class Store:
    """A server that takes direct uploads, and answers PUTs with a status of its own where one is set."""

    web: Web | None = None
    # Where files go: another name of this machine, as an object store has.
    host: str = "localhost"
    announced: int = 0
    put: Counter[str] = field(default_factory=Counter)
    stored: dict[str, bytes] = field(default_factory=dict)
    refuse: dict[str, list[int]] = field(default_factory=dict)
    jobs: list[tuple[str, list[str]]] = field(default_factory=list)
    # A real object store's address for a file, where the files go to one.
    presign: Callable[[dict[str, Any]], str | None] = lambda _: None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, handler: BaseHTTPRequestHandler, came: Came) -> None:
        with self.lock:
            if came.path == "/v1/uploads":
                answer(handler, 201, json.dumps({"data": self._targets(json.loads(came.body))}).encode())
            elif came.path == "/v1/jobs":
                ids = [image["upload_id"] for image in _images(came)]
                self.jobs.append((came.headers["Idempotency-Key"], ids))
                answer(handler, 202, json.dumps(job_json()).encode())
            else:
                answer(handler, self._take(came))

    def _targets(self, asked: dict[str, list[dict[str, Any]]]) -> list[dict[str, object]]:
        targets: list[dict[str, object]] = []
        for file in asked["files"]:
            self.announced += 1
            url = self.presign(file) or self._here(file)
            headers = {"Content-Type": file["content_type"]}
            targets.append({"id": f"u{self.announced}", "method": "PUT", "url": url, "headers": headers})
        return targets

    def _here(self, file: dict[str, Any]) -> str:
        return self.web.url(f"/store/{file['name']}?signature={self.announced}", host=self.host)

    def _take(self, came: Came) -> int:
        name = came.path.partition("?")[0].rpartition("/")[2]
        self.put[name] += 1
        assert "signature=" in came.path
        assert "Authorization" not in came.headers
        if self.refuse.get(name):
            return self.refuse[name].pop(0)
        self.stored[name] = came.body
        return 200


def _images(came: Came) -> list[dict[str, str]]:
    images: list[dict[str, str]] = json.loads(came.body)["images"]
    return images


@pytest.fixture
def store() -> Iterator[Store]:
    store = Store()
    with serving(store.answer) as web:
        store.web = web
        yield store


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{number}.jpg" for number in range(5)]
    for number, path in enumerate(paths):
        path.write_bytes(bytes([number]) * (100_000 * (number + 1)))
    return paths


def test_files_are_sent_without_the_key_and_named_in_order(
    store: Store, photos: list[Path], connect: Connect
) -> None:
    heard: list[tuple[int, int]] = []
    client = connect(store.web.url(""), api_key="secret")
    client.submit(Direct([*photos, photos[0]]), progress=lambda done, total: heard.append((done, total)))
    assert store.stored == {path.name: path.read_bytes() for path in photos}
    assert [ids for _, ids in store.jobs] == [["u1", "u2", "u3", "u4", "u5"]]
    assert heard[-1] == (1_500_000, 1_500_000)


def test_an_interrupted_upload_sends_only_the_rest(
    store: Store, photos: list[Path], connect: Connect, tmp_path: Path
) -> None:
    state = tmp_path / "upload.state"
    store.refuse = {"3.jpg": [501]}
    client = connect(store.web.url(""))
    with pytest.raises(Exception, match="does not take the file"):
        client.submit(Direct(photos, state, at_once=1))
    # What was under way at the time still ends well, and counts.
    assert store.put["3.jpg"] == 1
    # What ended the process may also have cut off the last line.
    with state.open("a") as file:
        file.write('\n{"file": ["/half')
    photos[1].write_bytes(b"changed since")
    client.submit(Direct(photos, state))
    assert store.put == Counter({"0.jpg": 1, "1.jpg": 2, "2.jpg": 1, "3.jpg": 2, "4.jpg": 1})
    assert store.stored["1.jpg"] == b"changed since"
    assert not state.exists()
    [(_, ids)] = store.jobs
    assert len(set(ids)) == 5


def test_a_submission_that_may_have_arrived_is_repeated_under_its_key(
    store: Store, photos: list[Path], connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "upload.state"
    client = connect(store.web.url(""))
    with monkeypatch.context() as patch:
        # The process ends between the answer and the removal of its memory.
        patch.setattr("captionfleet_client.upload_state.UploadState.forget", _die)
        with pytest.raises(RuntimeError):
            client.submit(Direct(photos, state))
    client.submit(Direct(photos, state))
    (first, ids), (second, again) = store.jobs
    assert (first, ids) == (second, again)
    assert set(store.put.values()) == {1}


def _die(_: object) -> None:
    raise RuntimeError


def test_the_store_of_another_server_is_not_taken_for_this_one(
    store: Store, photos: list[Path], tmp_path: Path
) -> None:
    state = tmp_path / "upload.state"
    state.write_text('\n{"server": "http://elsewhere", "key": "k", "began": 9e12}\n')
    with Client(store.web.url("")) as client:
        client.submit(Direct(photos, state))
    assert len(store.put) == 5
    assert store.jobs[0][0] != "k"


@pytest.mark.parametrize("content", [b"a photo, say", b"\n{}", b'[{"server": 1}]\n', b"\n"])
def test_a_file_that_remembers_no_upload_stays_as_it_is(
    store: Store, photos: list[Path], connect: Connect, tmp_path: Path, content: bytes
) -> None:
    state = tmp_path / "state"
    state.write_bytes(content)
    with pytest.raises(UnusableState, match="state remembers no upload; name a file that is not there"):
        connect(store.web.url("")).submit(Direct(photos, state))
    assert (state.read_bytes(), store.announced) == (content, 0)


@pytest.mark.parametrize(
    "content", [b"", b'\n{"server": ', b'\n{"server": "x"}\n{"file": 1}', b'\n{"server": "%b", "key": 1}\n']
)
def test_a_memory_that_was_cut_off_begins_anew(
    store: Store, photos: list[Path], connect: Connect, tmp_path: Path, content: bytes
) -> None:
    state = tmp_path / "state"
    state.write_bytes(content.replace(b"%b", store.web.url("").encode()))
    connect(store.web.url("")).submit(Direct(photos, state))
    assert len(store.put) == 5
    assert not state.exists()


def test_a_memory_that_cannot_be_kept_is_said_before_anything_is_sent(
    store: Store, photos: list[Path], connect: Connect, tmp_path: Path
) -> None:
    client = connect(store.web.url(""))
    for state in (tmp_path, tmp_path / "no" / "state", photos[0] / "state"):
        with pytest.raises(UnusableState, match="cannot remember the upload: "):
            client.submit(Direct(photos, state))
    with pytest.raises(InvalidArgument, match="at least one file"):
        client.submit(Direct(photos, at_once=0))
    with pytest.raises(UnreadableFile):
        client.submit(Direct([tmp_path / "gone.jpg"], tmp_path / "unused"))
    assert not (tmp_path / "unused").exists()
    with pytest.raises(InvalidArgument, match="200000 images takes no metadata"):
        client.submit(Direct([photos[0]] * 200_000), metadata={"a": 1})
    assert store.announced == 0


@pytest.mark.parametrize(
    "target", [None, {}, {"id": "u", "method": "PUT", "url": "http://x:y", "headers": {}}]
)
def test_an_answer_that_says_not_where_to_send(
    script: Script, connect: Connect, photos: list[Path], target: object
) -> None:
    script.answers = [ok({"data": [target]})]
    with pytest.raises(UnexpectedAnswer, match="does not say where to send the files"):
        connect(script.url).submit(Direct(photos[:1]))


def test_an_address_that_expired_is_asked_for_again(
    store: Store, photos: list[Path], connect: Connect
) -> None:
    store.refuse = {"2.jpg": [403]}
    client = connect(store.web.url(""))
    client.submit(Direct(photos))
    assert (store.announced, store.put["2.jpg"], len(store.stored)) == (6, 2, 5)
    store.refuse = {"2.jpg": [403, 403]}
    with pytest.raises(AccessDenied, match="does not take the file"):
        client.submit(Direct(photos))


def test_a_busy_store_is_tried_again(
    store: Store, photos: list[Path], connect: Connect, pauses: list[float]
) -> None:
    store.refuse = {"0.jpg": [503, 500]}
    connect(store.web.url("")).submit(Direct(photos))
    assert store.put["0.jpg"] == 3
    assert len(pauses) == 2
    store.refuse = {"0.jpg": [503, 503]}
    with pytest.raises(Unavailable):
        connect(store.web.url(""), retries=Retries(attempts=2)).submit(Direct(photos))


def test_what_cannot_be_read_is_said_before_anything_is_sent(
    store: Store, photos: list[Path], connect: Connect, tmp_path: Path
) -> None:
    client = connect(store.web.url(""))
    with pytest.raises(UnreadableFile, match=r"gone.jpg cannot be read: no such file"):
        client.submit(Direct([*photos, tmp_path / "gone.jpg"]))
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(UnreadableFile, match=r"empty.jpg is empty"):
        client.submit(Direct([tmp_path / "empty.jpg"]))
    assert store.announced == 0


def test_an_object_store_that_is_not_there_is_named(
    store: Store, photos: list[Path], connect: Connect
) -> None:
    store.host = "nowhere.invalid"
    with pytest.raises(ConnectionFailed, match=r"no object store answers at http://nowhere.invalid:\d+ \("):
        connect(store.web.url("")).submit(Direct(photos))


def test_s3_takes_what_it_signed(
    store: Store, photos: list[Path], connect: Connect, s3: servers.S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    objects = S3Objects(S3(), s3.bucket)
    store.presign = lambda file: objects.upload_url(
        f"uploads/{file['name']}", file["content_type"], file["size"], 600
    )
    connect(store.web.url(""), api_key="secret").submit(Direct(photos))
    assert [objects.read(f"uploads/{path.name}", 10**7) for path in photos] == [
        path.read_bytes() for path in photos
    ]
    # Larger than what was signed.
    store.presign = lambda file: objects.upload_url("uploads/x", file["content_type"], 5, 600)
    with pytest.raises(AccessDenied, match=rf"{s3.endpoint} does not take the file \(HTTP 403\)"):
        connect(store.web.url("")).submit(Direct(photos[:1]))
