"""Machines that can be lost: a worker, or an API server, behind network links and a clock of its own."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from tests.chaos.links import Link
from tests.clusters import child_of
from tests.processes import Process, reserve_port, scratch_folder
from tests.servers import S3, Postgres, Redis, unavailable

ROOT = Path(__file__).parents[2]


class Links:
    """One host's ways to the three servers."""

    def __init__(self, redis: Redis, postgres: Postgres, s3: S3) -> None:
        self.redis, self.database, self.s3 = Link(redis.port), Link(postgres.port), Link(s3.port)
        self._ports = (redis.port, postgres.port, s3.port)

    def __iter__(self) -> Iterator[Link]:
        return iter((self.redis, self.database, self.s3))

    def route(self, environment: dict[str, str]) -> dict[str, str]:
        """Return the settings of a process that takes these ways."""
        routed = dict(environment)
        for name in ("REDIS_URL", "DATABASE_URL", "AWS_ENDPOINT_URL_S3"):
            for port, link in zip(self._ports, self, strict=True):
                routed[name] = routed[name].replace(f":{port}", f":{link.port}")
        return routed


class Host:
    """One worker (parent, child, decoding processes) on a machine of its own; ``name`` is its model's."""

    def __init__(self, name: str, environment: dict[str, str], links: Links, wrong_by: int) -> None:
        """Describe a host whose clock is ``wrong_by`` seconds ahead."""
        self.name = name
        self.links = links
        self.busy = threading.Lock()
        """Held by the fault that has this host."""
        folder = scratch_folder("host")
        self._steering, self._clock = folder / "steering.json", folder / "clock"
        self._wrong_by = wrong_by
        self.right_clock()
        captioner = {"name": name, "seconds_per_batch": 0.03, "steering": str(self._steering)}
        self.process = Process(
            [sys.executable, "-m", "tests.worker_process", "parent"],
            environment=links.route(environment)
            | faked_time(self._clock)
            | {"CAPTIONER": json.dumps(captioner)},
            folder=ROOT,
        )

    def start(self) -> None:
        """Switch the machine on; its worker serves some seconds later."""
        self.process.start()

    def kill(self) -> None:
        """Lose the machine: every process of it ends by SIGKILL at once."""
        self.process.kill()

    @property
    def pid(self) -> int:
        """The process that captions."""
        return child_of(self.process)

    @property
    def decoders(self) -> list[int]:
        """The processes that decode."""
        found = []
        for thread in Path(f"/proc/{self.pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError):
                found += [int(pid) for pid in (thread / "children").read_text().split()]
        return [pid for pid in found if b"worker.decode_child" in _command(pid)]

    def signal(self, pid: int, number: signal.Signals) -> None:
        """Send a signal to one process of this machine, if it is still there."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    def turn_clock(self) -> None:
        """Let the wall clock jump, within a second, to as far ahead as it was behind; durations go on."""
        self._clock.write_text(f"{-self._wrong_by:+d}")

    def right_clock(self) -> None:
        """Put the wall clock back to where it was."""
        self._clock.write_text(f"{self._wrong_by:+d}")

    @property
    def blocked(self) -> bool:
        """Whether the captioner has met what ``steer`` told it to wait for."""
        return self._steering.with_suffix(".json.blocked").exists()

    @contextlib.contextmanager
    def steered(self, **orders: object) -> Iterator[None]:
        """Tell the captioner what to do inside the context (see ``SteeredCaptioner``)."""
        self._steering.with_suffix(".json.blocked").unlink(missing_ok=True)
        new = self._steering.with_suffix(".new")
        new.write_text(json.dumps(orders))
        new.replace(self._steering)
        try:
            yield
        finally:
            self._steering.unlink(missing_ok=True)


class ApiHost:
    """`captionfleet api` on a machine of its own."""

    def __init__(self, environment: dict[str, str], links: Links) -> None:
        self.links = links
        self.busy = threading.Lock()
        self.port = reserve_port()
        self.url = f"http://127.0.0.1:{self.port}"
        own = {"CAPTIONFLEET_PORT": str(self.port), "CAPTIONFLEET_API_WORKERS": "1"}
        command = [sys.executable, "-m", "cli.main", "api"]
        self.process = Process(command, environment=links.route(environment) | own, folder=ROOT)

    def start(self) -> None:
        """Start the server and wait until it answers."""
        import httpx

        def answers() -> bool:
            with contextlib.suppress(httpx.TransportError):
                return httpx.get(f"{self.url}/healthz", timeout=5).is_success
            return False

        self.process.start(answers, timeout=90)


def faked_time(clock: Path) -> dict[str, str]:
    """Return variables under which a process reads the wall clock as the file says (+600: ten minutes on)."""
    spec = importlib.util.find_spec("libfaketime")
    if spec is None or spec.origin is None:
        unavailable("the package libfaketime is not installed")
    library = Path(spec.origin).parent / "vendor" / "libfaketime" / "src" / "libfaketime.so.1"
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_DISABLE_SHM": "1",
    }


def _command(pid: int) -> bytes:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""
