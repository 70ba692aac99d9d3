"""How large batches are where no setting says it: found by trying on a GPU, from a captioner's own speed."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from model.captioner import Caption, DecodingOptions, Pixels
from model.errors import ModelOutOfMemory
from tests.captioners import ColourCaptioner
from worker.batch_size import ON_A_CPU, best_batch_size


@dataclass
class Gpu(ColourCaptioner):
    """A captioner that takes one second for each ``parallel`` images, by a clock of its own."""

    device: str = "cuda:0"
    parallel: int = 64
    clock: float = 0.0

    def caption(self, images: Pixels, options: DecodingOptions) -> list[list[Caption]]:
        """Let the time pass; only the memory counts."""
        if len(images) > self.memory:
            raise ModelOutOfMemory("too much for this device")
        self.clock += -(-len(images) // self.parallel)
        return [[Caption("noise", -0.5)] for _ in images]


def chosen(captioner: Gpu, monkeypatch: pytest.MonkeyPatch) -> int:
    """Return the batch that is found by the captioner's clock."""
    monkeypatch.setattr("worker.batch_size.time.perf_counter", lambda: captioner.clock)
    return best_batch_size(captioner)


def test_batches_grow_while_the_gpu_gains(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen(Gpu(parallel=64), monkeypatch) == 64


@pytest.mark.parametrize(("memory", "expected"), [(40, 32), (3, 1)])
def test_batches_stay_within_the_memory(memory: int, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen(Gpu(parallel=1000, memory=memory), monkeypatch) == expected


def test_a_cpu_is_not_kept_waiting() -> None:
    captioner = ColourCaptioner()
    assert best_batch_size(captioner) == ON_A_CPU
    assert captioner.batches == []
