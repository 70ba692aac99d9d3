"""A few seconds of fuzzing in every run of the tests; ``make fuzz`` goes on for as long as asked."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

SECONDS = 3
# Far below what a quiet machine does, far above what a fuzzer does that is stuck.
FEWEST = 100


def test_nothing_that_reads_bytes_of_strangers_crashes(tmp_path: Path) -> None:
    if importlib.util.find_spec("atheris") is None:
        if os.environ.get("CI") and sys.platform == "linux" and sys.version_info < (3, 14):
            pytest.fail("atheris is missing")
        pytest.skip("atheris is not made for this platform")
    words = [sys.executable, "-m", "tests.fuzz", "--target", "all", "--seconds", str(SECONDS), "--seed", "1"]
    run = subprocess.run(
        [*words, "--findings", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    executions = re.search(r"^all +([\d,]+)", run.stdout, re.M)
    assert executions
    assert int(executions[1].replace(",", "")) > FEWEST
