"""Requests that schemathesis makes of the OpenAPI document, right and wrong ones; answers are held to it."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import suppress
from itertools import cycle
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis.errors import Unsatisfiable
from schemathesis import APIOperation, Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from api.app import create_app
from jobs.callers import Scope
from jobs.errors import RequestError
from jobs.services import Services
from tests.contract.api.support import Client, caption, photos

Operation = APIOperation[Any, Any, Any, Any]
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
STREAM = "text/event-stream"
BATCH = 4
"""Requests made between two looks at the clock."""


class Fuzzer:
    """Sends requests of every operation in turn, half of them against a job that is there."""

    def __init__(self, services: Services, seed: int) -> None:
        self.answers: Counter[tuple[str, int]] = Counter()
        """How often an operation was answered with a status."""
        self._services = services
        self._seed = seed
        app = create_app(services)
        self._owner = f"fuzz-{seed}"
        _, key = services.store.keys.create(self._owner, scopes=list(Scope))
        self._client = Client(app, key)
        self._headers = {"Authorization": f"Bearer {key}"}
        self._job = ""
        self._impossible: set[tuple[str, GenerationMode]] = set()
        self._strategies: dict[tuple[str, GenerationMode], Any] = {}
        schema = schemathesis.openapi.from_wsgi("/openapi.json", app)
        self.operations = [found.ok() for found in schema.get_all_operations()]

    @property
    def statuses(self) -> Counter[int]:
        """How many answers had each status."""
        return Counter(status for _, status in self.answers.elements())

    def run(self, seconds: float) -> None:
        """Fuzz for so long, at the least every operation once; raises what is wrong with an answer."""
        until = time.monotonic() + seconds
        modes = cycle(GenerationMode)
        rounds = 0
        while rounds == 0 or time.monotonic() < until:
            mode = next(modes)
            for operation in self.operations:
                if (operation.label, mode) not in self._impossible:
                    self._some(operation, mode, self._seed + rounds)
                if rounds and time.monotonic() >= until:
                    return
            rounds += 1

    def _some(self, operation: Operation, mode: GenerationMode, number: int) -> None:
        limits = settings(
            max_examples=BATCH,
            phases=[Phase.explicit, Phase.generate],
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )

        @seeded(number)
        @limits
        @given(case=self._strategy(operation, mode))
        def attempt(case: Case[Any]) -> None:
            self._send(case)

        try:
            attempt()
        except Unsatisfiable:
            # A call without parameters cannot be made wrong.
            self._impossible.add((operation.label, mode))

    def _strategy(self, operation: Operation, mode: GenerationMode) -> Any:
        key = (operation.label, mode)
        if key not in self._strategies:
            self._strategies[key] = operation.as_strategy(generation_mode=mode)
        return self._strategies[key]

    def _send(self, case: Case[Any]) -> None:
        if "job_id" in case.path_parameters and sum(self.answers.values()) % 2:
            case.path_parameters["job_id"] = self._finished_job()
        if case.operation.path.endswith("/events") and not self._ends(case.path_parameters["job_id"]):
            return
        response = case.call(headers=self._headers)
        self.answers[f"{case.method} {case.operation.path}", response.status_code] += 1
        # A stream is described as text, and read as events there, which OpenAPI 3.1 cannot describe.
        excluded = (
            [response_schema_conformance] if STREAM in response.headers.get("content-type", [""])[0] else []
        )
        case.validate_response(response, checks=CHECKS, excluded_checks=excluded)

    def _finished_job(self) -> str:
        """A job with a caption and an error; what runs is finished, what is gone replaced."""
        try:
            self._services.store.jobs.get(self._owner, self._job)
        except RequestError:
            self._job = self._client.job(*photos(2))["id"]
        caption(self._services, self._job, failing=[1])
        return self._job

    def _ends(self, job_id: Any) -> bool:
        """Whether a stream of events comes to an end by itself."""
        with suppress(RequestError, ValueError):
            return self._services.store.jobs.get(self._owner, str(job_id))[0].status.final
        return True
