"""The API behind its real server: streaming, memory, broken connections, refusals, signals, start."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.errors import StartupError
from jobs.ids import new_id
from jobs.ports import open_listener
from jobs.records import JobSpec
from jobs.store import Store
from jobs.store.database import open_database
from jobs.store.submit import NewItem, NewJob
from tests.contract.api.running import MB, SILENCE_S, Running, prepare
from tests.contract.api.support import BOUNDARY, MULTIPART, multipart, photos
from tests.processes import reserve_port, scratch_folder, wait_until


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    """A server that the tests of this module share."""
    running = prepare(scratch_folder("server"))
    running.start()
    yield running
    assert running.process.stop() == 0, running.process.output
    assert "Traceback" not in running.process.output, running.process.output


def problem(answer: tuple[int, dict[str, str], bytes]) -> tuple[int, str]:
    """Status and code of a refusal."""
    status, headers, body = answer
    assert headers["content-type"] == "application/problem+json"
    return status, json.loads(body)["code"]


def receive(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Read one answer from a bare connection."""
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()


# Streaming


def resident(pid: int) -> int:
    """Memory of a server's one worker process, in bytes."""
    [child] = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(Path(f"/proc/{child}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_a_large_upload_needs_little_memory(server: Running) -> None:
    megabytes = int(os.environ.get("CAPTIONFLEET_TEST_UPLOAD_MB", "300"))
    server.send("POST", "/v1/jobs", multipart(*photos(2)), Content_Type=MULTIPART)
    idle = peak = resident(server.process.pid)
    image = b"\xff\xd8\xff" + os.urandom(MB)

    def body() -> Iterator[bytes]:
        nonlocal peak
        for number in range(megabytes):
            yield multipart_head(number) + image + b"\r\n"
            peak = max(peak, resident(server.process.pid))
        yield f"--{BOUNDARY}--\r\n".encode()

    status, _, answer = server.send("POST", "/v1/jobs", body(), Content_Type=MULTIPART)
    assert (status, json.loads(answer)["counts"]["total"]) == (202, megabytes)
    assert peak - idle < 40 * MB


def multipart_head(number: int) -> bytes:
    return (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="images"; filename="{number}.jpg"\r\n\r\n'
    ).encode()


def test_thousands_of_parts_fit_one_request(server: Running) -> None:
    small = b"".join(multipart_head(number) + b"\xff\xd8\xff\r\n" for number in range(1500))
    body = small + f"--{BOUNDARY}--\r\n".encode()
    status, _, answer = server.send("POST", "/v1/jobs", body, Content_Type=MULTIPART)
    assert (status, json.loads(answer)["counts"]["total"]) == (202, 1500)


def test_a_client_that_expects_continue_is_told_to(server: Running) -> None:
    body = multipart(*photos(2))
    with server.raw() as connection:
        connection.sendall(server.head(f"Content-Length: {len(body)}", "Expect: 100-continue"))
        assert connection.recv(100).startswith(b"HTTP/1.1 100")
        connection.sendall(body)
        assert receive(connection)[0] == 202


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_body_may_come_in_pieces_of_any_size(server: Running, size: int) -> None:
    body = multipart(*photos(1))
    pieces = (body[start : start + size] for start in range(0, len(body), size))
    status, _, answer = server.send("POST", "/v1/jobs", pieces, Content_Type=MULTIPART)
    assert (status, json.loads(answer)["counts"]["total"]) == (202, 1)


# Connections that break


@pytest.mark.parametrize("lines", [("Content-Length: 5000000",), ("Transfer-Encoding: chunked",)])
def test_a_client_that_goes_away_leaves_nothing(server: Running, lines: tuple[str, ...]) -> None:
    key = new_id("key")
    start = b"".join(photos(3)) + multipart_head(3) + os.urandom(MB)
    with server.raw() as connection:
        connection.sendall(server.head(*lines, f"Idempotency-Key: {key}"))
        connection.sendall(b"%x\r\n%s\r\n" % (len(start), start) if "chunked" in lines[0] else start)
        wait_until(lambda: server.uploads_left()[1] >= 3, what="the first images being stored")
        again = server.send(
            "POST", "/v1/jobs", multipart(*photos(1)), Content_Type=MULTIPART, Idempotency_Key=key
        )
        assert problem(again) == (409, "idempotency_in_progress")
    wait_until(lambda: server.uploads_left() == (0, 0), what="the dead upload being removed")

    def accepted() -> bool:
        body = multipart(*photos(1))
        return server.send("POST", "/v1/jobs", body, Content_Type=MULTIPART, Idempotency_Key=key)[0] == 202

    wait_until(accepted, what="the key being free again")


def test_a_client_that_falls_silent_is_refused(server: Running) -> None:
    with server.raw() as connection:
        connection.sendall(server.head("Content-Length: 5000") + b"".join(photos(1)))
        began = time.monotonic()
        assert problem(receive(connection)) == (400, "upload_incomplete")
        assert SILENCE_S * 0.8 < time.monotonic() - began < SILENCE_S + 10
    wait_until(lambda: server.uploads_left() == (0, 0), what="the dead upload being removed")


def trickle(connection: socket.socket) -> float:
    """Send a byte now and then until the server answers or hangs up; return after how long it did."""
    began = time.monotonic()
    with contextlib.suppress(OSError):
        while time.monotonic() - began < 20 and not select.select([connection], [], [], 0.3)[0]:
            connection.sendall(b"x")
    return time.monotonic() - began


def test_a_client_that_trickles_its_body_is_refused(server: Running) -> None:
    with server.raw() as connection:
        connection.sendall(server.head("Content-Length: 5000") + b"".join(photos(1))[:1000])
        assert SILENCE_S * 0.8 < trickle(connection) < SILENCE_S + 8
        assert problem(receive(connection)) == (400, "upload_incomplete")


@pytest.mark.parametrize(
    "beginning", [b"GET /healthz HTT", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-A: "]
)
def test_clients_that_never_finish_a_head_hold_no_thread(server: Running, beginning: bytes) -> None:
    """As many as there are threads, silent and trickling: others are answered once their time is over."""
    threads = server.settings.api_threads
    with contextlib.ExitStack() as held:
        connections = [held.enter_context(server.raw()) for _ in range(threads + 2)]
        for connection in connections:
            connection.sendall(beginning)
        assert SILENCE_S * 0.8 < trickle(connections[0]) < SILENCE_S + 8
        assert server.get("/healthz")[0] == 200


def take_slowly(connections: list[socket.socket], over: threading.Event) -> None:
    """Take more than a block within a block's time limit, and yet less than the least speed."""
    while not over.wait(0.25):
        for connection in connections:
            connection.recv(12_500)


def test_clients_that_take_their_answers_slowly_hold_no_thread(server: Running) -> None:
    """As many as there are threads: others are answered once their time is over."""
    body = multipart(multipart_head(0) + b"\xff\xd8\xff" + bytes(8 * MB) + b"\r\n")
    job = json.loads(server.send("POST", "/v1/jobs", body, Content_Type=MULTIPART)[2])
    asked = f"GET {job['links']['items']}/0/image HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.key}"
    over = threading.Event()
    with contextlib.ExitStack() as held:
        connections = [held.enter_context(server.raw()) for _ in range(server.settings.api_threads)]
        for connection in connections:
            connection.sendall(f"{asked}\r\n\r\n".encode())
        taking = threading.Thread(target=take_slowly, args=(connections, over))
        taking.start()
        held.callback(taking.join)
        held.callback(over.set)
        began = time.monotonic()
        # Each would go on for minutes.
        assert server.get("/healthz")[0] == 200
        assert time.monotonic() - began > SILENCE_S * 0.8


def test_a_malformed_chunk_is_refused(server: Running) -> None:
    with server.raw() as connection:
        connection.sendall(server.head("Transfer-Encoding: chunked") + b"zz\r\nhello\r\n")
        assert problem(receive(connection)) == (400, "upload_incomplete")


def test_a_download_that_cannot_be_finished_does_not_look_finished(server: Running) -> None:
    store = Store(open_database(server.settings, exclusive=False), 1)
    job = NewJob(new_id("job"), "ann", "small", "upload", JobSpec())
    name = "n" * 900
    store.submit.insert_job(job, (NewItem(name, name, "upload", f"k/{n}") for n in range(10_000)))
    connection = server.connect()
    connection.request("GET", f"/v1/jobs/{job.id}/results?partial=1", headers=server.headers)
    answer = connection.getresponse()
    assert answer.status == 200
    answer.read(1000)
    store.jobs.delete("ann", job.id)
    store.close()
    with pytest.raises(http.client.IncompleteRead):
        answer.read()
    connection.close()
    wait_until(lambda: f"broken off: there is no job {job.id}" in server.process.output)


# Refusals


def test_a_refused_client_that_only_sends_sees_the_answer(server: Running) -> None:
    with server.raw() as connection:
        connection.sendall(b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (20 * MB))
        connection.sendall(bytes(20 * MB))
        answer = receive(connection)
        assert problem(answer) == (401, "unauthorized")
        assert answer[1]["connection"] == "close"
        assert connection.recv(1) == b""


def test_a_refused_client_cannot_send_for_ever(server: Running) -> None:
    with server.raw() as connection:
        connection.sendall(server.head("Content-Length: 999999999999"))
        with pytest.raises(OSError, match=r"reset|[Bb]roken pipe"):
            connection.sendall(bytes(300 * MB))
    assert server.get("/healthz")[0] == 200


def test_a_small_unread_body_does_not_cost_the_connection(server: Running) -> None:
    connection = server.connect()
    for _ in range(2):
        connection.request("POST", "/nothing/here", bytes(10_000), server.headers)
        answer = connection.getresponse()
        assert (answer.status, json.loads(answer.read())["code"]) == (404, "not_found")
        assert answer.getheader("Connection") == "keep-alive"
    connection.close()


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GARBAGE\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 400),
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nX: " + b"y" * 20_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    ],
)
def test_what_is_not_http_is_refused_in_our_words(server: Running, sent: bytes, status: int) -> None:
    with server.raw() as connection:
        connection.sendall(sent)
        assert problem(receive(connection)) == (status, "invalid_request")


# Waiting and signals


def waiters(server: Running, count: int) -> tuple[list[threading.Thread], list[float]]:
    """Start clients that wait for a job that does not change; the list gets how long each waited."""
    body = multipart(*photos(1))
    job = json.loads(server.send("POST", "/v1/jobs", body, Content_Type=MULTIPART)[2])
    took: list[float] = []

    def wait() -> None:
        began = time.monotonic()
        assert server.get(f"/v1/jobs/{job['id']}?wait=25")[0] == 200
        took.append(time.monotonic() - began)

    threads = [threading.Thread(target=wait) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads, took


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_waiting_clients_leave_room_and_do_not_hold_up_the_end(
    tmp_path: Path, number: signal.Signals
) -> None:
    server = prepare(tmp_path)
    server.start()
    threads, took = waiters(server, 8)
    # Four of eight threads may wait; the other four clients are answered at once.
    wait_until(lambda: len(took) == 4, what="half of the clients being answered at once")
    began = time.monotonic()
    assert server.get("/healthz")[0] == 200
    assert time.monotonic() - began < 15
    assert len(took) == 4
    began = time.monotonic()
    assert server.process.stop(number) == 0
    assert time.monotonic() - began < 20
    for thread in threads:
        thread.join()
    if number == signal.SIGTERM:
        assert len(took) == 8
        assert max(took) < 24
    assert server.process.output.count("left") == 1
    assert server.process.output.count("served") == 1
    assert "Traceback" not in server.process.output


def test_clients_that_leave_at_the_same_time_do_not_hold_up_the_end(tmp_path: Path) -> None:
    server = prepare(tmp_path)
    server.start()
    idle = [server.connect() for _ in range(200)]
    for client in idle:
        client.request("GET", "/healthz")
        assert client.getresponse().read()

    def leave() -> None:
        for client in idle:
            client.close()

    gone = threading.Thread(target=leave)
    gone.start()
    began = time.monotonic()
    assert server.process.stop(signal.SIGINT) == 0
    gone.join()
    assert time.monotonic() - began < 20


# Start


def test_a_taken_port_is_told_in_one_line() -> None:
    with open_listener("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            StartupError, match=f"CAPTIONFLEET_PORT={port} on 127.0.0.1 cannot be used"
        ) as refusal:
            open_listener("127.0.0.1", port)
    assert refusal.value.code == "configuration_invalid"
    assert "\n" not in refusal.value.message


@pytest.mark.parametrize("host", ["nowhere.invalid", "192.0.2.1"])
def test_an_address_of_another_machine_is_told(host: str) -> None:
    with pytest.raises(
        StartupError, match=r"CAPTIONFLEET_(HOST|PORT)=.*" + re.escape(host) + "|" + re.escape(host)
    ):
        open_listener(host, reserve_port())


def test_what_keeps_a_process_from_starting_is_said_once(tmp_path: Path) -> None:
    # Two processes cannot share an embedded database.
    server = prepare(tmp_path, workers=2)
    server.process.start()
    assert server.process.wait(60) == 2
    assert server.process.output.count("refused: configuration_invalid") == 1
    assert "is in use by process" in server.process.output
    assert "Traceback" not in server.process.output
    assert "App failed" not in server.process.output


def test_a_process_that_dies_is_started_again(tmp_path: Path) -> None:
    server = prepare(tmp_path)
    server.start()
    pid = server.process.pid
    [child] = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    os.kill(int(child), signal.SIGKILL)

    def answers() -> bool:
        try:
            return server.get("/v1/jobs")[0] == 200
        except OSError:
            return False

    wait_until(lambda: Path(f"/proc/{pid}/task/{pid}/children").read_text().split() not in ([], [child]))
    wait_until(answers, what="the new process answering")
    assert server.process.stop() == 0
