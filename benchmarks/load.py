"""``make load``: mixed clients against a whole distributed deployment, for minutes.

Two API processes, two workers, Redis, PostgreSQL and an S3 server are started on this machine; locust's
clients (``benchmarks/load_clients.py``) upload, poll, long-poll, follow, download, search, edit and send by
presigned addresses. It fails unless no request failed, no process of the service ended or was replaced, and
the memory of API and workers is flat, and writes a report as Markdown and JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.faults import Fleet, running_fleet
from benchmarks.machine import describe_machine
from benchmarks.photos import make_photos
from tests.processes import Process
from tests.scrapes import scrape

USERS = 20
OWNERS = 4
PHOTOS = 200
SAMPLE_S = 5.0
# Caches fill, decoders and connections come up: memory is judged after this share of the time.
WARM_UP = 0.4
# Where that is shorter, everything still fills up, and memory is told but not judged.
SHORTEST_WARM_UP_S = 180.0
# Growth over the rest that is taken for noise: of the memory, and at least some MB.
NOISE, NOISE_MB = 0.05, 15.0
CLIENTS = Path(__file__).with_name("load_clients.py")


@dataclass(frozen=True)
class Memory:
    """What became of the memory that one kind of process has for itself, all of them together."""

    who: str
    first_mb: float
    last_mb: float
    mb_per_hour: float
    grown_mb: float
    flat: bool


@dataclass(frozen=True)
class Images:
    """How many images the clients sent, and where the captions came from."""

    sent: int
    by_model: int
    from_cache: int

    @classmethod
    def of(cls, fleet: Fleet) -> Images:
        """Ask the database what was sent, and the workers what they did."""
        sent = int(fleet.query("SELECT coalesce(sum(images), 0) FROM usage")[0][0])
        told = [scrape(port) for port in fleet.metrics_ports]
        by_model = sum(worker["captionfleet_worker_batch_images_sum",] for worker in told)
        hits = sum(worker["captionfleet_worker_cache_lookups_total", "hit"] for worker in told)
        return cls(sent, int(by_model), int(hits))


Samples = dict[str, list[tuple[float, float]]]
"""By name: seconds since the beginning, and MB."""


class Sampler(threading.Thread):
    """Notes the memory of processes with their children, again and again, and which of them are there."""

    def __init__(self, processes: dict[str, list[Process]]) -> None:
        super().__init__(name="sampler", daemon=True)
        self.samples: Samples = defaultdict(list)
        self.by_process: Samples = defaultdict(list)
        self._processes = processes
        self._first = {lasting for family in self._look().values() for lasting in family}
        self._changes: set[Lasting] = set()
        self._ended = threading.Event()

    @property
    def changes(self) -> list[str]:
        """The processes that ended, and those that came in their place; decoders are replaced on purpose."""
        return sorted(
            f"{one.name} (process {one.pid}) {'ended' if one in self._first else 'began'}"
            for one in self._changes
        )

    def run(self) -> None:
        """Take samples until stopped."""
        began = time.monotonic()
        while not self._ended.wait(SAMPLE_S):
            found = self._look()
            seconds = time.monotonic() - began
            for who, family in found.items():
                self.samples[who].append((seconds, sum(one.mb + one.decoding_mb for one in family.values())))
                for lasting, used in family.items():
                    self.by_process[lasting.name].append((seconds, used.mb))
                    if used.decoding_mb:
                        self.by_process[f"{lasting.name}, decoding"].append((seconds, used.decoding_mb))
            self._changes |= self._first ^ {lasting for family in found.values() for lasting in family}

    def _look(self) -> dict[str, dict[Lasting, Used]]:
        return {
            who: {
                lasting: used
                for number, process in enumerate(processes, 1)
                for lasting, used in _family(f"{who} {number}", process.pid).items()
            }
            for who, processes in self._processes.items()
        }

    def stop(self) -> None:
        """Take no more."""
        self._ended.set()
        self.join()

    def found(self, minutes: float) -> list[Memory]:
        """Return what became of each kind's memory after the warm-up."""
        warm = WARM_UP * minutes * 60
        return [_memory(who, [s for s in taken if s[0] >= warm]) for who, taken in self.samples.items()]


def _judged(minutes: float) -> bool:
    return WARM_UP * minutes * 60 >= SHORTEST_WARM_UP_S


def _memory(who: str, samples: list[tuple[float, float]]) -> Memory:
    seconds, used = zip(*samples, strict=True)
    slope = statistics.linear_regression(seconds, used).slope
    grown = slope * (seconds[-1] - seconds[0])
    allowed = max(NOISE_MB, NOISE * statistics.mean(used))
    return Memory(who, used[0], used[-1], slope * 3600, grown, grown <= allowed)


@dataclass(frozen=True)
class Lasting:
    """A process that is to last as long as the service; ``born`` tells it from a later one of its number."""

    name: str = field(compare=False)
    pid: int
    born: str


@dataclass(frozen=True)
class Used:
    """Memory that a process, and the decoding processes below it, share with nobody."""

    mb: float
    decoding_mb: float


def _family(name: str, pid: int) -> dict[Lasting, Used]:
    """Return a parent and its working processes with what they use."""
    found: dict[Lasting, Used] = {}
    for number, process in enumerate([pid, *sorted(_children(pid))]):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            state, *told = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
            if state in "ZX":
                continue
            called = f"{name}, process {number}" if number else f"{name}, parent"
            below = [] if process == pid else _children(process)
            found[Lasting(called, process, told[18])] = Used(_own_mb(process), sum(map(_own_mb, below)))
    return found


def _children(pid: int) -> list[int]:
    """Return the processes that any thread of a process began."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(child) for thread in threads for child in (thread / "children").read_text().split()]
    return []


def _own_mb(pid: int) -> float:
    """Return the memory that a process shares with nobody, in MB."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        resident, shared = map(int, Path(f"/proc/{pid}/statm").read_text().split()[1:3])
        return (resident - shared) * os.sysconf("SC_PAGE_SIZE") / 1e6
    return 0.0


def _course(samples: list[tuple[float, float]], minutes: float) -> dict[str, float | None]:
    """Return a process's memory at the beginning, middle and end, and how it grew after the warm-up."""
    warm = [sample for sample in samples if sample[0] >= WARM_UP * minutes * 60]
    slope = statistics.linear_regression(*zip(*warm, strict=True)).slope * 3600 if len(warm) > 1 else None
    used = [mb for _, mb in samples]
    return {
        "begin_mb": used[0],
        "middle_mb": used[len(used) // 2],
        "end_mb": used[-1],
        "mb_per_hour": slope,
    }


def _run_clients(fleet: Fleet, folder: Path, minutes: float, users: int) -> dict[str, Any]:
    """Run locust and return what it counted."""
    keys = [fleet.command("keys", "create", "--owner", f"client-{n}").split()[-1] for n in range(OWNERS)]
    stats = folder / "stats.json"
    own = {"LOAD_KEYS": ",".join(keys), "LOAD_PHOTOS": str(folder / "photos"), "LOAD_STATS": str(stats)}
    # The bucket's addresses are of this machine; whatever proxy there is has no part in it.
    own |= {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    command = [sys.executable, "-m", "locust", "-f", str(CLIENTS), "--headless", "--only-summary"]
    command += ["--host", fleet.url, "-u", str(users), "-r", "2", "-t", f"{round(minutes * 60)}s"]
    command += ["--stop-timeout", "60", "--exit-code-on-error", "0", "--loglevel", "ERROR"]
    subprocess.run(command, env=os.environ | own, check=True, capture_output=True)
    found: dict[str, Any] = json.loads(stats.read_text())
    return found


def measure(minutes: float, users: int, photos: int = PHOTOS) -> dict[str, Any]:
    """Run everything once and return the report."""
    about = describe_machine()
    with tempfile.TemporaryDirectory(prefix="captionfleet-load-") as made, running_fleet(2) as fleet:
        folder = Path(made)
        (folder / "photos").mkdir()
        make_photos(folder / "photos", photos)
        sampler = Sampler({"API": fleet.api, "workers": fleet.workers})
        sampler.start()
        began = time.monotonic()
        counted = _run_clients(fleet, folder, minutes, users)
        seconds = time.monotonic() - began
        sampler.stop()
        images = Images.of(fleet)
    memory = sampler.found(minutes)
    requests = sum(route["requests"] for route in counted["routes"])
    failures = sum(route["failures"] for route in counted["routes"])
    checks = {
        "no request failed": failures == 0 and not counted["errors"],
        "no process of the service ended or was replaced": not sampler.changes,
        "the model captioned more images than came from the cache": images.by_model > images.from_cache,
        **{f"memory of {found.who} is flat": found.flat for found in memory if _judged(minutes)},
    }
    return {
        "machine": about,
        "load_after": os.getloadavg()[0],
        "users": users,
        "seconds": seconds,
        "requests": requests,
        "requests_per_second": requests / seconds,
        "images": asdict(images),
        "failures": failures,
        "errors": counted["errors"],
        "routes": counted["routes"],
        "memory": [asdict(found) for found in memory],
        "changes": sampler.changes,
        "by_process": {who: _course(taken, minutes) for who, taken in sampler.by_process.items()},
        "samples": {**sampler.samples, **sampler.by_process},
        "checks": checks,
    }


def markdown(report: dict[str, Any]) -> str:
    """Write a report for people."""
    images = report["images"]
    lines = [
        f"{report['machine']}; load {report['load_after']:.1f} at the end.".replace("\n", "; "),
        "",
        f"{report['users']} clients for {report['seconds'] / 60:.1f} minutes: "
        f"{report['requests']:,} requests ({report['requests_per_second']:.0f}/s), "
        f"{images['sent']:,} images sent, {images['by_model']:,} captioned by the model, "
        f"{images['from_cache']:,} from the cache, {report['failures']} failures.",
        "",
        "| Route | Requests | Failures | p50 ms | p95 ms | p99 ms | max ms |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| `{route['route']}` | {route['requests']} | {route['failures']} | {route['p50_ms']:.0f} "
        f"| {route['p95_ms']:.0f} | {route['p99_ms']:.0f} | {route['max_ms']:.0f} |"
        for route in report["routes"]
    ]
    lines += ["", "| Memory of its own | After warm-up | At the end | Slope |", "|---|---|---|---|"]
    lines += [
        f"| {found['who']} | {found['first_mb']:.0f} MB | {found['last_mb']:.0f} MB "
        f"| {found['mb_per_hour']:+.0f} MB/h ({found['grown_mb']:+.1f} MB in all) |"
        for found in report["memory"]
    ]
    lines += ["", "| Process | Begin | Middle | End | Slope after warm-up |", "|---|---|---|---|---|"]
    lines += [
        f"| {who} | {found['begin_mb']:.0f} MB | {found['middle_mb']:.0f} MB | {found['end_mb']:.0f} MB | "
        + ("" if found["mb_per_hour"] is None else f"{found['mb_per_hour']:+.0f} MB/h")
        + " |"
        for who, found in report["by_process"].items()
    ]
    lines += ["", *(f"- {'ok' if met else 'MISSED'}: {check}" for check, met in report["checks"].items())]
    lines += [f"- {change}" for change in report["changes"]]
    lines += [f"- error: {error}" for error in report["errors"][:20]]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Read the command line, run, write both reports; 1 where a check was missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__)
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--users", type=int, default=USERS, help="clients at once")
    parser.add_argument("--out", type=Path, default=Path("runs/load"), help="report, without .md and .json")
    given = parser.parse_args()
    report = measure(given.minutes, given.users)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    text = markdown(report)
    given.out.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)
    return 0 if all(report["checks"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
