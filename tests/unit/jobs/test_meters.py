"""Meters: shown as Prometheus reads them, added up over processes that share them."""

from __future__ import annotations

import os
import urllib.error
import urllib.request

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics

from jobs.errors import StartupError
from jobs.meters import Counter, Exposition, Gauge, Histogram, Level, Meters
from jobs.ports import open_metrics_listener, show_metrics
from jobs.settings import Settings
from tests.scrapes import samples


class Counted:
    def __init__(self) -> None:
        self.group = Meters()
        self.calls = Counter(self.group, "test_calls_total", "Calls.", ["kind"], [("a",), ("b",)])
        self.level = Level(self.group, "test_level", "In hand.")
        self.sizes = Histogram(self.group, "test_sizes", "Sizes.", (1, 10))
        self.seen = Gauge(self.group, "test_seen", "Seen.", "what")

    def samples(self) -> dict[tuple[str, ...], float]:
        return samples(Exposition([self.group]).render()[0].decode())


def test_what_is_counted_is_shown_in_both_formats() -> None:
    counted = Counted()
    counted.calls.add(2, "a")
    counted.seen.put(7, 'odd "name"\n')
    for size in (1, 2, 11):
        counted.sizes.observe(size)
    assert counted.samples() == {
        ("test_calls_total", "a"): 2,
        ("test_calls_total", "b"): 0,
        ("test_level",): 0,
        ("test_sizes_bucket", "1"): 1,
        ("test_sizes_bucket", "10"): 2,
        ("test_sizes_bucket", "+Inf"): 3,
        ("test_sizes_count",): 3,
        ("test_sizes_sum",): 14,
        ("test_seen", 'odd "name"\n'): 7,
    }
    body, kind = Exposition([counted.group]).render("application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text")
    families = open_metrics(body.decode())  # type: ignore[no-untyped-call]
    assert {family.name for family in families} >= {"test_calls", "test_sizes"}


def _in_child(slot: int, counted: Counted, calls: int) -> None:
    pid = os.fork()
    if pid == 0:
        counted.group.take_slot(slot)
        counted.calls.add(calls, "a")
        counted.level.add(1)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_forked_processes_count_together_and_outlive_their_deaths() -> None:
    counted = Counted()
    counted.group.share(2)
    _in_child(0, counted, 3)
    _in_child(1, counted, 4)
    assert counted.samples()["test_calls_total", "a"] == 7
    # The successor of a dead process goes on with its count; what that had in hand is gone.
    _in_child(1, counted, 5)
    assert counted.samples()["test_calls_total", "a"] == 12
    assert counted.samples()["test_level",] == 2
    with pytest.raises(RuntimeError, match="after the cells were shared"):
        Counter(counted.group, "test_late_total", "Late.")


def test_the_metrics_port_shows_metrics_and_nothing_else() -> None:
    counted = Counted()
    listener = open_metrics_listener(Settings(metrics_port=0))
    assert listener is not None
    host, port = listener.getsockname()[:2]
    assert host == "127.0.0.1"
    show_metrics(listener, Exposition([counted.group], process=True))
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    assert "test_level 0.0" in text
    assert "process_cpu_seconds_total" in text
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=10)
    with pytest.raises(StartupError, match=f"CAPTIONFLEET_METRICS_PORT={port} on 127.0.0.1 cannot be used"):
        open_metrics_listener(Settings(metrics_port=port))


def test_the_metrics_port_is_closed_until_it_is_set() -> None:
    assert open_metrics_listener(Settings()) is None
