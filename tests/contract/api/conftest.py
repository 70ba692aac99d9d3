"""The API over both deployments: SQLite with a folder, and PostgreSQL with S3 and Redis."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from jobs.callers import Scope
from jobs.services import Services, build_services
from jobs.settings import Settings
from jobs.store.schema import upgrade
from tests.contract.api.support import Client, Deployment
from tests.servers import run_redis

LIMITS = {
    "require_keys": True,
    "max_images": 60,
    "max_image_bytes": 20_000,
    "max_upload_bytes": 3_000_000,
    "caption_wait_s": 20,
    "models": "small,large",
}


@pytest.fixture(scope="session", params=["embedded", "distributed"])
def deployment(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    """Real services that all tests share; each test is an owner of its own."""
    with ExitStack() as stack:
        if request.param == "embedded":
            settings = Settings(data_dir=tmp_path_factory.mktemp("api"), **LIMITS)
        else:
            settings = _distributed(request, stack)
        services = build_services(settings)
        stack.callback(services.close)
        upgrade(services.store.database)
        yield Deployment(services)


def _distributed(request: pytest.FixtureRequest, stack: ExitStack) -> Settings:
    s3 = request.getfixturevalue("s3_service")
    patch = stack.enter_context(pytest.MonkeyPatch.context())
    for name, value in s3.environment.items():
        patch.setenv(name, value)
    url = stack.enter_context(request.getfixturevalue("postgres").database())
    redis = stack.enter_context(run_redis())
    return Settings(database_url=url, redis_url=redis.url, bucket=s3.new_bucket(), **LIMITS)


@pytest.fixture
def client(deployment: Deployment) -> Client:
    """A client of a new owner."""
    return deployment.client()


@pytest.fixture
def admin(deployment: Deployment) -> Client:
    """A client that may make and end keys."""
    return deployment.client(scopes=[Scope.ADMIN])


@pytest.fixture
def services(deployment: Deployment) -> Services:
    """The services behind the API."""
    return deployment.services


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[Services]:
    """Embedded services of this test alone, without keys."""
    services = build_services(Settings(data_dir=tmp_path))
    upgrade(services.store.database)
    yield services
    services.close()
