"""How fast training learns from step to step."""

from __future__ import annotations

import dataclasses

import pytest

from model.config import read_config
from model.training_phases import _rates


@pytest.mark.parametrize("total", [100, 20, 7])
def test_the_rate_rises_falls_and_stays_low_after_the_decay(total: int) -> None:
    settings = read_config("small").self_critical
    assert settings is not None
    settings = dataclasses.replace(settings, learning_rate=1.0, encoder_learning_rate=0.5)
    rates = [_rates(settings, step, total, 20) for step in range(3 * max(total, 20))]
    network = [rate for rate, _ in rates]
    assert network[:20] == sorted(network[:20])
    assert network[20:] == sorted(network[20:], reverse=True)
    assert max(network) == 1.0
    assert network[max(total, 21) :] == pytest.approx([0.05] * (len(network) - max(total, 21)))
    assert [rate for _, rate in rates] == [rate / 2 for rate in network]
