"""A process that lists a prefix is killed in the middle: the next one goes on, no image is there twice."""

from __future__ import annotations

import dataclasses
import os
import sys
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import update

from jobs.ids import new_id
from jobs.listing import KIND
from jobs.records import JobSpec
from jobs.services import build_services
from jobs.settings import load_settings
from jobs.store.expansions import NewExpansion
from jobs.store.schema import upgrade
from jobs.store.submit import NewJob
from jobs.tables import ExpansionRow
from tests.contract.stores import LONG_AGO
from tests.processes import Process, wait_until
from tests.servers import S3, Redis

ROOT = Path(__file__).parents[2]
OBJECTS = 45
# A process as the product starts it, but that lists three keys at a time instead of a thousand.
EXPANDING = """
import time
from jobs import listing
from jobs.services import build_services
from jobs.settings import load_settings

page = listing.list_after

def few(*arguments):
    found, _ = page(*arguments)
    time.sleep(0.25)
    return found[:3], len(found) <= 3

listing.list_after, listing.SLICE_ITEMS = few, 1
services = build_services(load_settings())
services.expander.start()
time.sleep(60)
"""


def test_killing_whoever_lists_neither_doubles_nor_loses(
    s3: S3, postgres_url: str, redis_server: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = {
        "DATABASE_URL": postgres_url.replace("+psycopg", ""),
        "REDIS_URL": redis_server.url,
        "CAPTIONFLEET_BUCKET": dataclasses.replace(s3).new_bucket(),
        **s3.environment,
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    client = s3.client()
    keys = [f"photos/{number:03}.jpg" for number in range(OBJECTS)]
    for key in keys:
        client.put_object(Bucket=s3.bucket, Key=key, Body=b"x")
    client.close()
    services = build_services(load_settings())
    upgrade(services.store.database)
    uri = f"s3://{s3.bucket}/photos/"
    services.store.keys.grant("ann", uri)
    job = NewJob(new_id("job"), "ann", "small", KIND, JobSpec())
    services.intake.prepare(job, NewExpansion(KIND, {"uri": uri, "filter": {}}))

    def total() -> int:
        return services.store.jobs.get("ann", job.id)[0].counts.total

    def listed(least: int) -> bool:
        return total() >= least

    deaths = 0
    for least in (6, 21):
        process = Process(
            [sys.executable, "-c", EXPANDING], environment=os.environ | environment, folder=ROOT
        )
        process.start()
        wait_until(partial(listed, least), 60, f"{least} images listed")
        process.kill()
        deaths += total() < OBJECTS
        with services.store.database.write() as connection:
            connection.execute(update(ExpansionRow).values(lease_until=LONG_AGO))
    assert deaths == 2
    while services.expander.run_once():
        pass
    items = [item for page in services.store.jobs.results("ann", job.id) for item in page]
    assert [item.source for item in items] == [f"s3://{s3.bucket}/{key}" for key in keys]
    assert [item.position for item in items] == list(range(OBJECTS))
    seen = services.store.jobs.get("ann", job.id)[0]
    assert (seen.status, seen.counts.total, seen.error) == ("queued", OBJECTS, None)
    services.close()
