"""Direct uploads: images that clients put into the object store themselves, before they make a job."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, delete, exists, insert, or_, select, tuple_, update

from jobs.errors import RequestError
from jobs.ids import new_id
from jobs.limits import NO_LIMITS, Limits
from jobs.store.database import Database
from jobs.store.usage import charge
from jobs.tables import DirectUploadRow, JobRow

URL_SECONDS = 3600
# Whoever never makes a job of an upload has it removed after a day.
KEPT_SECONDS = 86400


@dataclass(frozen=True)
class NewUpload:
    """What a client says of a file it is about to send; ``token_hash`` opens the local address."""

    name: str
    content_type: str
    size: int
    token_hash: str | None = None


@dataclass(frozen=True)
class DirectUpload:
    """One file that may be sent, or was."""

    batch: str
    number: int
    name: str
    content_type: str
    size: int
    job_id: str | None

    @property
    def id(self) -> str:
        """What the client names it by."""
        return upload_name(self.batch, self.number)

    @property
    def key(self) -> str:
        """Where its bytes lie."""
        return upload_key(self.batch, self.number)


def upload_name(batch: str, number: int) -> str:
    """Return an upload's id."""
    return f"{batch}_{number}"


def upload_prefix(batch: str) -> str:
    """Prefix of the objects of one call to ``POST /v1/uploads``."""
    return f"uploads/{batch}/"


def upload_key(batch: str, number: int) -> str:
    """Key of an upload's object."""
    return f"{upload_prefix(batch)}{number}"


def split_upload_id(text: str) -> tuple[str, int] | None:
    """Return batch and number of an upload's id; ``None`` for what cannot be one."""
    batch, _, number = text.rpartition("_")
    plain = number.isascii() and number.isdigit() and len(number) < 9 and str(int(number)) == number
    return (batch, int(number)) if plain and batch else None


class UploadStore:
    """Direct uploads by owner; those of others do not exist."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(
        self, owner: str, files: Sequence[NewUpload], limits: Limits = NO_LIMITS
    ) -> tuple[str, datetime]:
        """Open uploads; return their batch and when their addresses expire.

        Raises ``RequestError`` quota_exceeded.
        """
        batch = new_id("upload")
        with self._database.write() as connection:
            row = {
                "batch": batch,
                "owner": owner,
                "created_at": self._database.now(),
                "url_expires_at": self._database.now(URL_SECONDS),
                "expires_at": self._database.now(KEPT_SECONDS),
            }
            connection.execute(
                insert(DirectUploadRow).values(**row),
                [{"number": number, **vars(file)} for number, file in enumerate(files)],
            )
            charge(connection, self._database, owner, limits, size=sum(file.size for file in files))
            expires = connection.execute(
                select(DirectUploadRow.url_expires_at).where(DirectUploadRow.batch == batch).limit(1)
            ).scalar_one()
        return batch, expires

    def batch(self, owner: str, batch: str) -> dict[int, DirectUpload]:
        """Return an owner's uploads of one batch that have not expired, by number."""
        mine = (DirectUploadRow.owner == owner, DirectUploadRow.batch == batch)
        with self._database.read() as connection:
            alive = DirectUploadRow.expires_at > self._database.now()
            rows = connection.execute(select(*_COLUMNS).where(*mine, alive))
            return {row.number: DirectUpload(*row) for row in rows}

    def open_by_token(self, batch: str, number: int, token_hash: str) -> DirectUpload | None:
        """Return the upload that a local address leads to, while it may be sent."""
        here = (DirectUploadRow.batch == batch, DirectUploadRow.number == number)
        with self._database.read() as connection:
            still = (DirectUploadRow.url_expires_at > self._database.now(), DirectUploadRow.job_id.is_(None))
            query = select(*_COLUMNS).where(*here, *still, DirectUploadRow.token_hash == token_hash)
            row = connection.execute(query).first()
        return DirectUpload(*row) if row else None

    def of_job(self, job_id: str) -> list[str]:
        """Return the keys of the objects that a job was made of."""
        with self._database.read() as connection:
            rows = connection.execute(select(*_COLUMNS).where(DirectUploadRow.job_id == job_id))
            return [DirectUpload(*row).key for row in rows]

    def abandoned(self, limit: int, but: Collection[tuple[str, int]] = ()) -> list[DirectUpload]:
        """Return uploads past their time that no job needs, or whose job is gone, ``but`` those."""
        needed = exists().where(JobRow.id == DirectUploadRow.job_id)
        with self._database.read() as connection:
            late = DirectUploadRow.expires_at < self._database.now()
            query = select(*_COLUMNS).where(late, or_(DirectUploadRow.job_id.is_(None), ~needed))
            if but:
                query = query.where(_KEY.not_in(but))
            return [DirectUpload(*row) for row in connection.execute(query.limit(limit))]

    def forget(self, uploads: Sequence[DirectUpload]) -> None:
        """Delete the rows of uploads whose objects are gone."""
        with self._database.write() as connection:
            connection.execute(
                delete(DirectUploadRow).where(_KEY.in_([(upload.batch, upload.number) for upload in uploads]))
            )


_KEY = tuple_(DirectUploadRow.batch, DirectUploadRow.number)
_COLUMNS = (
    DirectUploadRow.batch,
    DirectUploadRow.number,
    DirectUploadRow.name,
    DirectUploadRow.content_type,
    DirectUploadRow.size,
    DirectUploadRow.job_id,
)


def take_uploads(
    connection: Connection, database: Database, owner: str, job_id: str, ids: Sequence[str]
) -> None:
    """Give uploads to a job, each to one only; raise ``RequestError`` invalid_request where one is taken."""
    keys = [split for upload in ids if (split := split_upload_id(upload))]
    taken = connection.execute(
        update(DirectUploadRow)
        .where(_KEY.in_(keys), DirectUploadRow.owner == owner, DirectUploadRow.job_id.is_(None))
        .where(DirectUploadRow.expires_at > database.now())
        .values(job_id=job_id)
    ).rowcount
    if taken != len(ids):
        message = "one of the uploads belongs to a job already, is named twice or has expired"
        raise RequestError("invalid_request", message)
