"""The scaling policy, and the simulation that tries it."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize("most", [1, 3, 8, 18, 40, 200])
def test_every_backlog_has_its_workers(load: object, most: int) -> None:
    policy = load("policy")  # type: ignore[operator]
    plan = policy.steps(600, most)
    assert len(plan) <= 20
    assert policy.workers_for(0, plan) == 0
    assert policy.workers_for(0.01, plan) == plan[1].workers
    assert policy.workers_for(1e9, plan) == most
    counts = [policy.workers_for(seconds, plan) for seconds in range(1, 130_000, 50)]
    assert counts == sorted(counts)
    # Nobody waits longer than planned as long as the fleet is not at its largest.
    assert all(
        seconds <= 600 * count
        for seconds, count in zip(range(1, 130_000, 50), counts, strict=True)
        if count < most
    )


@pytest.mark.parametrize("wrong", [(0, 3), (600, 0)])
def test_a_fleet_of_nothing_is_refused(load: object, wrong: tuple[float, int]) -> None:
    with pytest.raises(ValueError, match="at least one worker"):
        load("policy").steps(*wrong)  # type: ignore[operator]


def test_the_simulation_drains_every_trace_for_less_than_a_fixed_fleet(load: object) -> None:
    policy = load("policy")  # type: ignore[operator]
    simulation = load("simulation")  # type: ignore[operator]
    world = simulation.World()
    for trace, until_s in simulation.TRACES.values():
        follows = simulation.simulate(trace, until_s, world, policy.steps(world.drain_s, world.max_workers))
        fixed = simulation.simulate(trace, until_s, world, [policy.Step(0, None, world.max_workers)])
        assert follows.backlog[-1] < 1
        assert follows.workers[-1] == 0
        assert follows.paid_s < fixed.paid_s / 4
        assert follows.longest_wait_s < 45 * 60
