"""The worker against the bare loop: distributed on a core of its own, embedded, and one image at a time."""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import httpx

from benchmarks.bare import CORE, Bare, bare
from benchmarks.faults import CAPTIONFLEET, Fleet, running_fleet
from benchmarks.figures import Figure, Setting
from benchmarks.plot import occupancy
from tests.processes import wait_until

JOB_LIMIT_S = 900.0
WARM_UP = 32
SINGLE = 40
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Job:
    """What a job took: from its first claim to its end, and processor time of the worker's processes."""

    rate: float
    cpu_ms: float
    stages: dict[str, float]


def processor_seconds(pid: int) -> float:
    """Processor time of a process and all its descendants, ended ones that were waited for included."""
    return sum(_spent(process / "stat", children=True) for process in _tree(pid))


def _tree(pid: int) -> Iterator[Path]:
    pending = [pid]
    while pending:
        process = Path(f"/proc/{pending.pop()}")
        yield process
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for thread in (process / "task").iterdir():
                pending += [int(child) for child in (thread / "children").read_text().split()]


def _spent(stat: Path, *, children: bool) -> float:
    try:
        fields = stat.read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(int(field) for field in fields[11 : 15 if children else 13]) / _TICKS


def _threads(pid: int) -> dict[Path, float]:
    """Processor time of every thread of a process and its descendants."""
    found: dict[Path, float] = {}
    for process in _tree(pid):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found |= {
                thread: _spent(thread / "stat", children=False) for thread in (process / "task").iterdir()
            }
    return found


def _stages(before: dict[Path, float], after: dict[Path, float], images: int) -> dict[str, float]:
    """Milliseconds per image: the thread that captions (it spends most), decode processes, all else."""
    spent = {thread: (seconds - before.get(thread, 0.0)) / images * 1000 for thread, seconds in after.items()}
    decoders = {thread for thread in spent if b"decode_child" in (thread / "cmdline").read_bytes()}
    decoding = sum(spent[thread] for thread in decoders)
    captioning = max(spent[thread] for thread in spent if thread not in decoders)
    return {
        "captioning": captioning,
        "decoding": decoding,
        "all else": sum(spent.values()) - decoding - captioning,
    }


def run_job(fleet: Fleet, files: list[Path]) -> Job:
    """Submit photos as one job and see it through."""
    pid = fleet.workers[0].pid
    before, threads = processor_seconds(pid), _threads(pid)
    with tempfile.TemporaryDirectory() as folder:
        for path in files:
            (Path(folder) / path.name).symlink_to(path.resolve())
        job_id = json.loads(fleet.command("submit", folder, "--json"))["id"]
    wait_until(lambda: fleet.job(job_id)["status"] == "completed", JOB_LIMIT_S, "the job's end")
    spent, stages = processor_seconds(pid) - before, _stages(threads, _threads(pid), len(files))
    job = fleet.job(job_id)
    assert job["counts"]["succeeded"] == len(files), job["counts"]
    seconds = _time(job["finished_at"]) - _time(job["started_at"])
    return Job(len(files) / seconds, spent / len(files) * 1000, stages)


def _time(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


@contextlib.contextmanager
def tied_to(cores: set[int]) -> Iterator[None]:
    """Keep this process, and those it starts meanwhile, on some cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, (cores & before) or before)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def distributed(setting: Setting) -> Iterator[Figure]:
    """One worker on a core of its own; Redis, PostgreSQL, S3 server and API on the others."""
    cores = os.sched_getaffinity(0)
    files = setting.files()
    with tied_to(cores - {CORE}), running_fleet(1, CORE) as fleet:
        run_job(fleet, files[:WARM_UP])
        loops = [bare(setting)]
        job = run_job(fleet, files[WARM_UP:])
        loops.append(bare(setting))
        cpu_ms = statistics.mean(loop.cpu_ms for loop in loops)
        rate = statistics.mean(loop.rate for loop in loops)
        yield Figure("worker, processor time", job.cpu_ms, "ms/image", note=f"bare loop {cpu_ms:.1f}")
        occupancy(setting.profiles / "worker-core.svg", job.stages, job.rate)
        for stage, spent in job.stages.items():
            yield Figure(f"worker, of it {stage}", spent, "ms/image")
        yield Figure("worker, processor time / bare loop", job.cpu_ms / cpu_ms, goal="<= 1.10")
        yield Figure("worker on one core", job.rate, "images/s", note=f"bare loop {rate:.1f}")
        yield Figure("worker on one core / bare loop", job.rate / rate, goal=">= 0.90")
        yield from _single(fleet, files, loops[0])


def _single(fleet: Fleet, files: list[Path], loop: Bare) -> Iterator[Figure]:
    """One image at a time through POST /v1/captions on an idle system."""
    headers = {"Authorization": f"Bearer {fleet.key}"}
    took = []
    with httpx.Client(base_url=fleet.url, headers=headers, timeout=60) as client:
        for path in files[:SINGLE]:
            began = time.perf_counter()
            answer = client.post(
                "/v1/captions",
                # The photos have just been captioned: the model is measured, not what is remembered of them.
                files={
                    "options": (None, json.dumps({"use_cache": False}), "application/json"),
                    "image": (path.name, path.read_bytes(), "image/jpeg"),
                },
            )
            took.append((time.perf_counter() - began) * 1000)
            assert answer.status_code == 200, answer.text
    p50 = statistics.median(took)
    yield Figure("one image, POST to caption, p50", p50, "ms", note=f"bare model {loop.alone_ms:.0f} ms")
    yield Figure("one image, p50 beyond the bare model", p50 - loop.alone_ms, "ms", goal="<= 150")


def embedded(setting: Setting) -> Iterator[Figure]:
    """`captionfleet caption`: a folder on all cores, and one photo from cold and with a warm cache."""
    with tempfile.TemporaryDirectory() as unused:
        # Python compiles what no command has run since the installation: once in an installation's life.
        _caption(setting.files(1), unused)
    with tempfile.TemporaryDirectory() as cache:
        cold = _caption(setting.files(1), cache)
        warm = [_caption(setting.files(1), cache) for _ in range(3)]
        yield Figure("captionfleet caption cat.jpg, cold", cold, "s", "<= 5")
        yield Figure("captionfleet caption cat.jpg, warm", statistics.median(warm), "s", "<= 2")
        loop = bare(setting, None)
        seconds = _caption(setting.files(), cache) - statistics.median(warm)
    rate = (setting.images - 1) / seconds
    yield Figure("captionfleet caption FOLDER", rate, "images/s", note="all cores, start-up apart")
    yield Figure("captionfleet caption FOLDER / bare loop", rate / loop.rate, goal=">= 0.90")


def _caption(files: list[Path], cache: str) -> float:
    """Run the command as a user does, its caches in a folder of its own; return seconds of wall clock."""
    with tempfile.TemporaryDirectory() as folder:
        command = [CAPTIONFLEET, "caption", *map(str, files), "-o", str(Path(folder) / "captions.jsonl")]
        environment = os.environ | {"XDG_CACHE_HOME": cache}
        # Where this is set, each start would compile all of Python's modules again.
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        began = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, env=environment)
        return time.perf_counter() - began


def figures(setting: Setting) -> Iterator[Figure]:
    """Measure both modes."""
    yield from embedded(setting)
    if hasattr(os, "sched_setaffinity") and len(os.sched_getaffinity(0)) > 1:
        yield from distributed(setting)
