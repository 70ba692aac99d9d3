"""The images, built anew once per run."""

from __future__ import annotations

import subprocess

import pytest

from tests.docker.stack import API_IMAGE, EMBEDDED_IMAGE, WORKER_IMAGE, docker
from tests.servers import unavailable


@pytest.fixture(scope="session")
def images() -> None:
    """Build what the tests run, never what an earlier run left; skip them where no Docker engine answers."""
    try:
        docker("version", timeout=20)
        docker("compose", "version", timeout=20)
    except (AssertionError, OSError, subprocess.TimeoutExpired) as error:
        unavailable(f"no Docker engine with compose answers: {str(error).strip().splitlines()[-1]}")
    # Not by compose, which would need a newer builder than some engines have.
    worker = ("build", "-f", "Dockerfile.worker")
    docker("build", "-f", "Dockerfile.api", "-t", API_IMAGE, ".", timeout=1200)
    docker(*worker, "--target", "cpu", "-t", WORKER_IMAGE, ".", timeout=1200)
    docker(*worker, "--target", "embedded", "-t", EMBEDDED_IMAGE, ".", timeout=1200)
