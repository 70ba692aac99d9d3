"""Counters and gauges of a process, and of processes that share them, as Prometheus wants to read them.

The API runs in several processes and a scrape reaches one of them. So a server's processes count in memory
that they share, made before they are forked: a slot for each, which its successor goes on with. A scrape adds
the slots up; it costs the same however many processes came and went, and no file is written.
"""

from __future__ import annotations

import mmap
import threading
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

    Cells = array[float] | memoryview[float]

Values = tuple[str, ...]
"""Values of a meter's labels, in their order."""
CELL_BYTES = 8


class Meters:
    """Meters that are declared, shared and shown together."""

    def __init__(self) -> None:
        self.cells: Cells = array("d")
        """What this process counts in."""
        self.declared: list[Meter] = []
        self._slots: list[memoryview[float]] = []

    def add(self, meter: Meter, cells: int) -> int:
        """Declare a meter; return the number of its first cell."""
        if not isinstance(self.cells, array):
            raise RuntimeError(f"{meter.name} is declared after the cells were shared")
        first = len(self.cells)
        self.cells.extend([0.0] * cells)
        self.declared.append(meter)
        return first

    def share(self, slots: int) -> None:
        """Make memory for the processes that will be forked; what was counted before is forgotten."""
        size = max(1, len(self.cells))
        memory = memoryview(mmap.mmap(-1, slots * size * CELL_BYTES)).cast("d")
        self._slots = [memory[at * size : (at + 1) * size] for at in range(slots)]
        self.cells = self._slots[0]

    def take_slot(self, slot: int) -> None:
        """Go on with what the slot's last process counted; what lay in its hands is gone."""
        self.cells = self._slots[slot % len(self._slots)]
        for meter in self.declared:
            meter.took_over()

    def total(self, cell: int) -> float:
        """Return a cell's sum over all processes."""
        return sum(slot[cell] for slot in self._slots) if self._slots else self.cells[cell]


class Meter:
    """One metric: its name, what it says and its labels, all values of which are known beforehand."""

    kind = ""

    def __init__(
        self, meters: Meters, name: str, text: str, labels: Sequence[str] = (), values: Iterable[Values] = ()
    ) -> None:
        self.name = name
        self.text = text
        self.labels = tuple(labels)
        self._meters = meters
        self._lock = threading.Lock()
        rows = list(values) if labels else [()]
        width = self._width()
        first = meters.add(self, width * len(rows))
        self._at = {row: first + number * width for number, row in enumerate(rows)}

    def took_over(self) -> None:
        """Forget what is true of a living process only."""

    def read(self) -> Metric:
        """Return what was counted, for Prometheus' client to write."""
        raise TypeError(f"{self.name} is of no kind")

    def _width(self) -> int:
        return 1

    def _family(self) -> Metric:
        from prometheus_client.metrics_core import Metric

        return Metric(self.name.removesuffix("_total"), self.text, self.kind)

    def _named(self, row: Values) -> dict[str, str]:
        return dict(zip(self.labels, row, strict=True))


class Counter(Meter):
    """A number that only grows."""

    kind = "counter"

    def add(self, amount: float = 1.0, *values: str) -> None:
        """Count ``amount`` more."""
        cell = self._at[values]
        with self._lock:
            self._meters.cells[cell] += amount

    def read(self) -> Metric:
        """Return one sample for each combination of labels."""
        family = self._family()
        for row, cell in self._at.items():
            family.add_sample(self.name, self._named(row), self._meters.total(cell))
        return family


class Level(Counter):
    """A number of things that each process has in hand: it grows and falls, and dies with the process."""

    kind = "gauge"

    def took_over(self) -> None:
        """Begin at zero."""
        for cell in self._at.values():
            self._meters.cells[cell] = 0.0


class Histogram(Meter):
    """How often a quantity lay between which bounds; a combination that never came up is not shown."""

    kind = "histogram"

    def __init__(
        self,
        meters: Meters,
        name: str,
        text: str,
        bounds: Sequence[float],
        labels: Sequence[str] = (),
        values: Iterable[Values] = (),
    ) -> None:
        self._bounds = tuple(bounds)
        super().__init__(meters, name, text, labels, values)

    def observe(self, quantity: float, *values: str) -> None:
        """Count one quantity."""
        first = self._at[values]
        cell = first + bisect_left(self._bounds, quantity)
        with self._lock:
            self._meters.cells[cell] += 1
            self._meters.cells[first + len(self._bounds) + 1] += quantity

    def read(self) -> Metric:
        """Return buckets, count and sum for each combination of labels that came up."""
        family = self._family()
        total = self._meters.total
        for row, first in self._at.items():
            counts = list(accumulate(total(first + at) for at in range(len(self._bounds) + 1)))
            if not counts[-1] and self.labels:
                continue
            named = self._named(row)
            for bound, count in zip((*map(str, self._bounds), "+Inf"), counts, strict=True):
                family.add_sample(f"{self.name}_bucket", {**named, "le": bound}, count)
            family.add_sample(f"{self.name}_count", named, counts[-1])
            family.add_sample(f"{self.name}_sum", named, total(first + len(self._bounds) + 1))
        return family

    def _width(self) -> int:
        return len(self._bounds) + 2


class Gauge(Meter):
    """Numbers that are looked up when they are asked for; not shared, for every process finds the same."""

    kind = "gauge"

    def __init__(self, meters: Meters, name: str, text: str, *labels: str) -> None:
        super().__init__(meters, name, text, labels)
        self._found: dict[Values, float] = {}

    def put(self, number: float, *values: str) -> None:
        """Set one number."""
        with self._lock:
            self._found[values] = float(number)

    def drop(self, *values: str) -> None:
        """Know one number no more."""
        with self._lock:
            self._found.pop(values, None)

    def clear(self) -> None:
        """Know no number any more."""
        with self._lock:
            self._found = {}

    def read(self) -> Metric:
        """Return the numbers that were set."""
        family = self._family()
        with self._lock:
            found = dict(self._found)
        for row, number in found.items():
            family.add_sample(self.name, self._named(row), number)
        return family

    def _width(self) -> int:
        return 0


class Exposition:
    """What one process shows to Prometheus."""

    def __init__(
        self, groups: Sequence[Meters], refresh: Sequence[Callable[[], None]] = (), *, process: bool = False
    ) -> None:
        """Show ``groups`` once ``refresh`` set their gauges, and the ``process`` as Prometheus names it."""
        self._groups = groups
        self._refresh = list(refresh)
        self._process = process

    def refresh_with(self, refresh: Callable[[], None]) -> None:
        """Have some more gauges set from now on."""
        self._refresh.append(refresh)

    def collect(self) -> Iterator[Metric]:
        """Yield every meter with all it has counted, as Prometheus' client wants it."""
        from prometheus_client import ProcessCollector

        for refresh in self._refresh:
            refresh()
        for group in self._groups:
            for meter in group.declared:
                yield meter.read()
        if self._process:
            yield from ProcessCollector(registry=None).collect()

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """Return the text in the form that a client accepts, and its content type."""
        from prometheus_client.exposition import choose_encoder

        encode, content_type = choose_encoder(accept)
        return encode(self), content_type
