"""Workers and API servers that die, stop, freeze, or lose their clock."""

from __future__ import annotations

import contextlib
import random
import signal
import socket
import threading
import uuid
from dataclasses import dataclass

import httpx
from sqlalchemy import text

from jobs.tables import ChunkRow
from tests.captioners import colour_png
from tests.chaos.cluster import CHUNK, JOB_IMAGES, FaultyCluster
from tests.chaos.faults import Fault
from tests.chaos.hosts import ApiHost, Host
from tests.chaos.links import Missed
from tests.clusters import OWNER
from tests.processes import wait_until

# What a worker may take to stop: its grace time, and what it needs to close.
STOP_S = 45
# What the statements that claim and that record carry, prepared or not: the worker's id, captions.
WORKER, CAPTION = socket.gethostname()[:40].encode() + b"-", b"picture "


def pause(seconds: float) -> None:
    """Let a fault last."""
    threading.Event().wait(seconds)


@dataclass(frozen=True)
class KillDuring:
    """kill -9 at the moment a certain message leaves the worker, or before it hears the answer to it.

    Whether that message still arrives is chance, as it is on a network.
    """

    name: str
    link: str
    patterns: tuple[bytes, ...]
    answer: bool = False

    def inject(self, cluster: FaultyCluster, rng: random.Random) -> None:
        with cluster.host(rng) as host:
            with getattr(host.links, self.link).hold(*self.patterns, answer=self.answer) as hold:
                hold.wait_caught()
                host.kill()
                hold.end(deliver=rng.random() < 0.5)
            host.start()


class KillInDecode:
    """kill -9 of a worker whose decoding processes are in the middle of an image."""

    name = "worker kill -9 in decode"

    def inject(self, cluster: FaultyCluster, rng: random.Random) -> None:
        with cluster.host(rng) as host:
            stop_decoding(cluster, host)
            host.kill()
            host.start()


def stop_decoding(cluster: FaultyCluster, host: Host) -> list[int]:
    """Freeze a host's decoding processes until they must have an image each; return their ids.

    Raises ``Missed`` where another fault has just taken them all.
    """
    cluster.wait_at_work(host)
    decoders = host.decoders
    if not decoders:
        raise Missed("the host has no decoding process")
    for pid in decoders:
        host.signal(pid, signal.SIGSTOP)
    with contextlib.suppress(AssertionError):
        wait_until(lambda: _stands_still(cluster, host), 20)
    return decoders


def _stands_still(cluster: FaultyCluster, host: Host) -> bool:
    before = cluster.in_hand_of(host)
    pause(0.5)
    return bool(before) and before == cluster.in_hand_of(host)


class KillInCaption:
    """kill -9 of a worker in the middle of a forward pass."""

    name = "worker kill -9 in caption"

    def inject(self, cluster: FaultyCluster, rng: random.Random) -> None:
        with cluster.host(rng) as host:
            with host.steered(block=True):
                wait_blocked(host)
                host.kill()
            host.start()


def wait_blocked(host: Host) -> None:
    """Wait until the captioner stands still; raise ``Missed`` where it has nothing to do."""
    try:
        wait_until(lambda: host.blocked, 90)
    except AssertionError as error:
        raise Missed(f"{host.name} captions nothing") from error


@dataclass(frozen=True)
class Stop:
    """A signal that asks a worker to end: chunks are finished or handed back within the grace time."""

    name: str
    number: signal.Signals

    def inject(self, cluster: FaultyCluster, rng: random.Random) -> None:
        with cluster.host(rng) as host:
            cluster.wait_at_work(host)
            host.process.send(self.number)
            host.process.wait(STOP_S)
            host.start()


class ChildKilled:
    """kill -9 of the process that captions, alone: its parent starts it again."""

    name = "worker's child kill -9"

    def inject(self, cluster: FaultyCluster, rng: random.Random) -> None:
        with cluster.host(rng) as host:
            cluster.wait_at_work(host)
            host.signal(host.pid, signal.SIGKILL)


class AllGone:
    """Every worker is lost at once, and there is none for a while (a fleet scaled to zero)."""

    name = "all workers gone for a while"

    def inject(self, cluster: FaultyCluster, rng: random.Random) -> None:
        with cluster.all_hosts() as hosts:
            for host in hosts:
                host.kill()
            pause(rng.uniform(2, 8))
            for host in hosts:
                host.start()


class ThreeLosses:
    """Three workers in a row die with the same chunk in hand: no good image fails for it."""

    name = "three spot losses in a row"

    def inject(self, cluster: FaultyCluster, rng: random.Random) -> None:
        with cluster.all_hosts() as hosts:
            job_id = cluster.a_job()
            while not self._lose(cluster, hosts, job_id, _next_image(cluster, job_id, rng)):
                job_id = cluster.a_job()

    def _lose(self, cluster: FaultyCluster, hosts: list[Host], job_id: str, position: int) -> bool:
        """Lose three workers in a row over an image; return false where it was done before that."""
        with contextlib.ExitStack() as steering:
            for host in hosts:
                # Every forward pass with this picture in it stands still, so that each loss finds it there.
                steering.enter_context(host.steered(block=[position]))
            for _ in range(3):
                holder = self._holder(cluster, job_id, position)
                if holder is None:
                    return False
                holder.kill()
                holder.start()
        return True

    def _holder(self, cluster: FaultyCluster, job_id: str, position: int) -> Host | None:
        """Wait for the chunk with this image to be in hand; return where, or ``None`` once it is done."""
        holds = (ChunkRow.job_id == job_id, ChunkRow.first <= position, ChunkRow.last >= position)

        def find() -> Host | str | None:
            [*found] = cluster.chunks(*holds)
            if not found or found[0].state != "leased":
                return "done" if found and found[0].state == "done" else None
            host = cluster.host_of(found[0].owner)
            return host if host and host.blocked and host.process.alive else None

        try:
            found = wait_until(find, 120)
        except AssertionError as error:
            raise Missed(f"{job_id} {position} is in nobody's hand") from error
        return found if isinstance(found, Host) else None


def _next_image(cluster: FaultyCluster, job_id: str, rng: random.Random) -> int:
    """Return an image of the first chunk that is not announced yet, or else of the last one."""
    done = max([number for job, number in cluster.announced() if job == job_id], default=0)
    return min(JOB_IMAGES - 1, CHUNK * (done + 1) + rng.randrange(CHUNK))


class FrozenPastLease:
    """A worker stands still for longer than its lease (a live migration), then goes on as if nothing was."""

    name = "worker frozen past its lease"

    def inject(self, cluster: FaultyCluster, rng: random.Random) -> None:
        with cluster.host(rng) as host:
            cluster.wait_at_work(host)
            pid = host.pid
            host.signal(pid, signal.SIGSTOP)
            pause(cluster.services.settings.lease_s + rng.uniform(2, 5))
            host.signal(pid, signal.SIGCONT)


class FrozenRecording:
    """A machine stands still with a recording before its COMMIT: nobody may wait for what that has locked."""

    name = "worker frozen in a recording"

    def inject(self, cluster: FaultyCluster, rng: random.Random) -> None:
        with cluster.host(rng) as host, host.links.database.hold(CAPTION, b"COMMIT") as hold:
            hold.wait_caught()
            host.process.pause()
            ours = text("SELECT 1 FROM pg_stat_activity WHERE client_port = :port")
            session = ours.bindparams(port=hold.port)
            try:
                wait_until(lambda: not cluster.rows(session), 60, "the end of the frozen transaction")
            finally:
                host.process.resume()
            hold.end(deliver=True)


class ClockJumps:
    """A host's clock, ten minutes wrong as it is, jumps by twenty, and back again."""

    name = "clock jumps by twenty minutes"

    def inject(self, cluster: FaultyCluster, rng: random.Random) -> None:
        with cluster.host(rng) as host:
            cluster.wait_at_work(host)
            host.turn_clock()
            pause(rng.uniform(3, 6))
            host.right_clock()


class ApiKilled:
    """kill -9 of an API server in the middle of an upload; the client sends the same request again."""

    name = "API kill -9 mid upload"
    images = 12

    def inject(self, cluster: FaultyCluster, rng: random.Random) -> None:
        api, key = cluster.api(), uuid.uuid4().hex
        secret = cluster.ask(lambda: cluster.services.store.keys.create(OWNER, "chaos"))[1]
        headers = {"Authorization": f"Bearer {secret}", "Idempotency-Key": key}
        numbers = [rng.randrange(1000) for _ in range(self.images)]
        try:
            api.start()
            with api.links.s3.hold(b"PUT /", b"PUT /", answer=rng.random() < 0.5) as hold:
                sender = threading.Thread(target=self._send, args=(api, headers, numbers), daemon=True)
                sender.start()
                hold.wait_caught()
                before = self._uploads(api, headers)
                api.process.kill()
            api.start()
            assert self._uploads(api, headers) == before, "half a job is visible"
            job_id = wait_until(lambda: self._send(api, headers, numbers), 120, "the retry's success")
            cluster.expected[job_id] = [f"picture {number}" for number in numbers]
        finally:
            api.process.kill()

    def _send(self, api: ApiHost, headers: dict[str, str], numbers: list[int]) -> str:
        files = [("images", (f"{number}.png", colour_png(number), "image/png")) for number in numbers]
        with contextlib.suppress(httpx.TransportError):
            answer = httpx.post(f"{api.url}/v1/jobs", files=files, headers=headers, timeout=60)
            if answer.status_code == httpx.codes.ACCEPTED:
                return str(answer.json()["id"])
            assert answer.status_code in (409, 503), answer.text
            pause(2)
        return ""

    def _uploads(self, api: ApiHost, headers: dict[str, str]) -> set[str]:
        """Return the jobs of this kind that the API shows."""

        def ask() -> set[str] | None:
            with contextlib.suppress(httpx.HTTPError):
                jobs = httpx.get(f"{api.url}/v1/jobs?limit=100", headers=headers, timeout=30)
                data = jobs.raise_for_status().json()["data"]
                return {job["id"] for job in data if job["source"] == "upload"} | {""}
            return None

        return wait_until(ask, 60, "a list of jobs")


FAULTS: list[Fault] = [
    KillDuring("worker kill -9 claiming", "database", (b"job_", WORKER, b"COMMIT"), answer=True),
    KillDuring("worker kill -9 in fetch", "s3", (b"GET /",)),
    KillInDecode(),
    KillInCaption(),
    KillDuring("worker kill -9 recording", "database", (CAPTION,)),
    KillDuring("worker kill -9, commit unheard", "database", (CAPTION, b"COMMIT"), answer=True),
    KillDuring("worker kill -9, record to ack", "redis", (b"HDEL",)),
    KillDuring("worker kill -9, record to enqueue", "redis", (b"LPUSH",)),
    ChildKilled(),
    Stop("worker SIGTERM", signal.SIGTERM),
    Stop("worker SIGQUIT", signal.SIGQUIT),
    AllGone(),
    ThreeLosses(),
    FrozenPastLease(),
    FrozenRecording(),
    ClockJumps(),
    ApiKilled(),
]
