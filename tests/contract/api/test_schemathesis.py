"""The API under requests made from its own document: no 5xx, and no answer that the document lacks."""

from __future__ import annotations

import os
import time

import pytest

from jobs.services import Services
from tests.contract.api.fuzzing import Fuzzer
from tests.contract.api.support import Deployment

SECONDS = 60 * float(os.environ.get("FUZZ_MINUTES", "5"))


def test_every_operation_answers_as_documented(embedded: Services) -> None:
    fuzzer = Fuzzer(embedded, seed=1)
    fuzzer.run(5)
    assert len({operation for operation, _ in fuzzer.answers}) >= len(fuzzer.operations) - 1
    assert {200, 202, 400, 404} <= set(fuzzer.statuses)


@pytest.mark.soak
def test_every_operation_answers_as_documented_for_long(deployment: Deployment) -> None:
    fuzzer = Fuzzer(deployment.services, seed=int(time.time()))
    fuzzer.run(SECONDS)
    print(f"{sum(fuzzer.answers.values())} answers: {dict(fuzzer.statuses)}")
