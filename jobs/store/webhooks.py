"""Webhooks: secrets by owner, and the outbox of events, written in the transaction that ends a job.

A delivery is ``pending`` -> ``delivered`` or ``failed``. Taking one moves its ``next_at`` ahead: that is its
lease, so a sender that dies loses nothing and the event, with the same id, goes out again.
"""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, or_, select, update

from jobs.errors import RequestError
from jobs.events import Delivery, DeliveryAttempt, DeliveryStatus, WebhookSecret
from jobs.ids import new_id
from jobs.records import JobStatus
from jobs.store.database import Database
from jobs.store.outputs import output_states
from jobs.store.views import to_job
from jobs.tables import DeliveryRow, JobRow, WebhookSecretRow

DAY_S = 86400
# How long a replaced secret signs beside the new one.
OVERLAP_S = DAY_S
KEPT_S = 30 * DAY_S
SECRET_BYTES = 32
SLICE = 1000


@dataclass(frozen=True)
class Due:
    """An event that this process is to send now: its try's number, and the secrets to sign with."""

    id: str
    owner: str
    url: str
    body: str
    attempt: int
    secrets: tuple[str, ...]


def announce(connection: Connection, database: Database, job_id: str) -> None:
    """Put the end of a job into the outbox where the job has a webhook; call it where a job becomes final.

    The event is written down as it is sent, so that every try sends the same bytes.
    """
    query = select(JobRow).where(JobRow.id == job_id, JobRow.webhook_url.is_not(None))
    row = connection.execute(query).first()
    if row is None:
        return
    output = output_states(connection, [job_id]).get(job_id)
    job = to_job(row, 0, output).model_dump(mode="json")
    kind = f"job.{JobStatus(row.status).value}"
    body = json.dumps({"type": kind, "timestamp": job["finished_at"], "data": job}, ensure_ascii=False)
    now = database.now()
    connection.execute(
        insert(DeliveryRow).values(
            id=new_id("evt"),
            owner=row.owner,
            job_id=job_id,
            type=kind,
            url=row.webhook_url,
            body=body,
            status=DeliveryStatus.PENDING,
            attempts=0,
            next_at=now,
            log=[],
            created_at=now,
        )
    )


class WebhookStore:
    """Secrets and deliveries."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def secrets(self, owner: str) -> list[WebhookSecret]:
        """Return the owner's valid secrets, newest first; the first call makes one."""
        with self._database.read() as connection:
            if found := self._valid(connection, owner):
                return found
        with self._database.write() as connection:
            self._add_secret(connection, owner)
            return self._valid(connection, owner)

    def rotate(self, owner: str) -> list[WebhookSecret]:
        """Make a new secret; the ones before it sign along for a day more."""
        with self._database.write() as connection:
            until = self._database.now(OVERLAP_S)
            connection.execute(
                update(WebhookSecretRow)
                .where(WebhookSecretRow.owner == owner, WebhookSecretRow.expires_at.is_(None))
                .values(expires_at=until)
            )
            self._add_secret(connection, owner)
            return self._valid(connection, owner)

    def _add_secret(self, connection: Connection, owner: str) -> None:
        secret = f"whsec_{base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()}"
        connection.execute(
            insert(WebhookSecretRow).values(
                id=new_id("whs"), owner=owner, secret=secret, created_at=self._database.now()
            )
        )

    def _valid(self, connection: Connection, owner: str) -> list[WebhookSecret]:
        columns = (WebhookSecretRow.secret, WebhookSecretRow.created_at, WebhookSecretRow.expires_at)
        valid = or_(WebhookSecretRow.expires_at.is_(None), WebhookSecretRow.expires_at > self._database.now())
        query = select(*columns).where(WebhookSecretRow.owner == owner, valid)
        rows = connection.execute(query.order_by(WebhookSecretRow.id.desc()))
        return [
            WebhookSecret(secret=row.secret, created_at=row.created_at, expires_at=row.expires_at)
            for row in rows
        ]

    def take(self, lease_s: float, busy: Collection[str]) -> Due | None:
        """Take the next event that is due, of an owner who is not ``busy``; it stays taken for ``lease_s``.

        First tries come before repeated ones, so that a receiver that is away does not hold up the others.
        """
        due = (DeliveryRow.status == DeliveryStatus.PENDING, DeliveryRow.next_at <= self._database.now())
        query = (
            select(DeliveryRow.id)
            .where(*due, DeliveryRow.owner.not_in(busy))
            .order_by(DeliveryRow.attempts, DeliveryRow.next_at)
            .limit(1)
        )
        with self._database.read() as connection:
            if connection.execute(query).first() is None:
                return None
        with self._database.write() as connection:
            found = connection.execute(query.with_for_update(skip_locked=True)).scalar()
            if found is None:
                return None
            row = connection.execute(
                update(DeliveryRow)
                .where(DeliveryRow.id == found)
                .values(attempts=DeliveryRow.attempts + 1, next_at=self._database.now(lease_s))
                .returning(
                    DeliveryRow.id, DeliveryRow.owner, DeliveryRow.url, DeliveryRow.body, DeliveryRow.attempts
                )
            ).one()
        valid = tuple(secret.secret for secret in self.secrets(row.owner))
        return Due(row.id, row.owner, row.url, row.body, row.attempts, valid)

    def settle(
        self, due: Due, attempt: DeliveryAttempt, status: DeliveryStatus, delay_s: float | None
    ) -> None:
        """Write what came of a try and when the next is due; one that a later try overtook is only logged."""
        with self._database.write() as connection:
            row = connection.execute(
                select(DeliveryRow.log, DeliveryRow.attempts, DeliveryRow.status)
                .where(DeliveryRow.id == due.id)
                .with_for_update()
            ).first()
            if row is None:
                return
            values: dict[str, Any] = {"log": [*row.log, attempt.model_dump(mode="json")]}
            if status is DeliveryStatus.DELIVERED or row.attempts == due.attempt:
                later = None if delay_s is None else self._database.now(delay_s)
                values |= {"status": status, "next_at": later}
            connection.execute(update(DeliveryRow).where(DeliveryRow.id == due.id).values(**values))

    def waiting(self) -> tuple[int, float]:
        """Return how many events wait to be sent, and the age in seconds of the oldest."""
        query = select(func.count(), func.min(DeliveryRow.created_at), self._database.now()).where(
            DeliveryRow.status == DeliveryStatus.PENDING, DeliveryRow.next_at.is_not(None)
        )
        with self._database.read() as connection:
            count, oldest, now = connection.execute(query).one()
        return count, (now - oldest).total_seconds() if oldest else 0.0

    def page(
        self, owner: str, job_id: str | None, status: DeliveryStatus | None, limit: int, before: str | None
    ) -> tuple[list[Delivery], str | None]:
        """Return an owner's deliveries, newest first, and the id to go on before."""
        query = select(DeliveryRow).where(DeliveryRow.owner == owner)
        if job_id is not None:
            query = query.where(DeliveryRow.job_id == job_id)
        if status is not None:
            query = query.where(DeliveryRow.status == status)
        if before is not None:
            query = query.where(DeliveryRow.id < before)
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(DeliveryRow.id.desc()).limit(limit + 1)).all()
        found = [_delivery(row) for row in rows[:limit]]
        return found, found[-1].id if len(rows) > limit else None

    def retry(self, owner: str, delivery_id: str) -> Delivery:
        """Make an event due now, with all its tries before it again; raise ``RequestError`` not_found."""
        mine = (DeliveryRow.id == delivery_id, DeliveryRow.owner == owner)
        with self._database.write() as connection:
            row = connection.execute(
                update(DeliveryRow)
                .where(*mine)
                .values(status=DeliveryStatus.PENDING, attempts=0, next_at=self._database.now())
                .returning(*DeliveryRow.__table__.columns)
            ).first()
        if row is None:
            raise RequestError("not_found", f"there is no delivery {delivery_id}")
        return _delivery(row)

    def forget_old(self) -> None:
        """Drop a slice of deliveries that are long over, and secrets that sign no more."""
        with self._database.write() as connection:
            over = select(DeliveryRow.id).where(
                DeliveryRow.status != DeliveryStatus.PENDING,
                DeliveryRow.created_at < self._database.now(-KEPT_S),
            )
            connection.execute(delete(DeliveryRow).where(DeliveryRow.id.in_(over.limit(SLICE))))
            connection.execute(
                delete(WebhookSecretRow).where(WebhookSecretRow.expires_at < self._database.now())
            )


def _delivery(row: Row[Any]) -> Delivery:
    pending = row.status == DeliveryStatus.PENDING
    return Delivery(
        id=row.id,
        job_id=row.job_id,
        type=row.type,
        url=row.url,
        status=row.status,
        created_at=row.created_at,
        next_attempt_at=row.next_at if pending else None,
        attempts=[DeliveryAttempt(**entry) for entry in row.log],
    )
