"""Credentials that are away while jobs are prepared."""

from __future__ import annotations

import pytest
from sqlalchemy import update

from jobs.tables import ExpansionRow
from tests.contract.stores import LONG_AGO
from tests.contract.test_sources import Service, service

__all__ = ["service"]


@pytest.mark.parametrize("service", ["sqlite-rclone"], indirect=True)
def test_credentials_that_are_away_for_a_moment_end_nothing(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where an instance's profile does not answer in time: boto3 says then that there are none."""
    service.put("photos/1.jpg", "photos/2.jpg")
    manifest = f"s3://{service.bucket}/photos/m.csv"
    service.put("photos/m.csv", body=f"s3_uri\ns3://{service.bucket}/photos/1.jpg\n".encode())
    jobs = [service.prefix("photos/"), service.submit(manifest=manifest)]
    with monkeypatch.context() as hiccup:
        hiccup.setattr("boto3.Session.get_credentials", lambda _: None)
        # Once they were there, nobody asks again.
        jobs.append(service.prefix("photos/"))
        service.expand()
    assert [service.job(job["id"]).status for job in jobs] == ["preparing"] * 3
    with service.services.store.database.write() as connection:
        connection.execute(update(ExpansionRow).values(not_before=LONG_AGO))
    service.expand()
    assert [service.job(job["id"]).counts.total for job in jobs] == [2, 1, 2]
    assert [item.error for job in jobs for item in service.items(job["id"])] == [None] * 5
