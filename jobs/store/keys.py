"""API keys and grants: who may call, and which S3 prefixes their jobs may read."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlsplit

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from jobs.errors import RequestError
from jobs.store.database import Database
from jobs.tables import ApiKeyRow, GrantRow

LOCAL_OWNER = "local"


@dataclass(frozen=True)
class ApiKey:
    """What is known of a key; the key itself is shown once, when it is made."""

    id: str
    owner: str
    label: str
    created_at: datetime
    revoked_at: datetime | None


@dataclass(frozen=True)
class Grant:
    """A bucket and key prefix an owner's jobs may read, and write results to if it is ``writable``."""

    owner: str
    bucket: str
    prefix: str
    writable: bool = False


class KeyStore:
    """Keys by hash and grants by owner."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, owner: str, label: str = "") -> tuple[ApiKey, str]:
        """Make a key for an owner; the second value is the key, which is not kept."""
        key_id = secrets.token_hex(4)
        key = f"cf_{key_id}_{secrets.token_urlsafe(32)}"
        with self._database.write() as connection:
            row = connection.execute(
                insert(ApiKeyRow)
                .values(id=key_id, owner=owner, label=label, hash=_hash(key), created_at=self._database.now())
                .returning(ApiKeyRow.created_at)
            ).one()
        return ApiKey(key_id, owner, label, row.created_at, None), key

    def all(self) -> list[ApiKey]:
        """Return all keys, oldest first."""
        columns = (ApiKeyRow.id, ApiKeyRow.owner, ApiKeyRow.label, ApiKeyRow.created_at, ApiKeyRow.revoked_at)
        with self._database.read() as connection:
            return [
                ApiKey(*row) for row in connection.execute(select(*columns).order_by(ApiKeyRow.created_at))
            ]

    def revoke(self, key_id: str) -> None:
        """Refuse a key from now on; raise ``RequestError`` not_found."""
        with self._database.write() as connection:
            changed = connection.execute(
                update(ApiKeyRow)
                .where(ApiKeyRow.id == key_id)
                .values(revoked_at=func.coalesce(ApiKeyRow.revoked_at, self._database.now()))
            ).rowcount
        if not changed:
            raise RequestError("not_found", f"there is no key {key_id}")

    def owner_of(self, key: str) -> str | None:
        """Return whose key this is, or ``None`` for unknown and revoked ones."""
        with self._database.read() as connection:
            valid = (ApiKeyRow.hash == _hash(key), ApiKeyRow.revoked_at.is_(None))
            return connection.execute(select(ApiKeyRow.owner).where(*valid)).scalar()

    def any_valid(self) -> bool:
        """Whether there is a key that opens the API."""
        with self._database.read() as connection:
            found = connection.execute(select(ApiKeyRow.id).where(ApiKeyRow.revoked_at.is_(None)).limit(1))
            return found.first() is not None

    def grant(self, owner: str, uri: str, *, writable: bool = False) -> Grant:
        """Let an owner's jobs read, or also write, under ``s3://bucket/prefix``.

        The last word on a prefix counts. Raises ``RequestError`` invalid_request.
        """
        parts = urlsplit(uri)
        if parts.scheme != "s3" or not parts.netloc:
            raise RequestError("invalid_request", f"{uri!r} is not of the form s3://bucket/prefix")
        prefix = uri.removeprefix(f"s3://{parts.netloc}").removeprefix("/")
        grant = Grant(owner, parts.netloc, prefix, writable)
        dialect = sqlite if self._database.is_sqlite else postgresql
        with self._database.write() as connection:
            row = {"owner": owner, "bucket": grant.bucket, "prefix": grant.prefix, "writable": writable}
            connection.execute(
                dialect.insert(GrantRow)
                .values(**row, created_at=self._database.now())
                .on_conflict_do_update(
                    index_elements=["owner", "bucket", "prefix"], set_={"writable": writable}
                )
            )
        return grant

    def ungrant(self, grant: Grant) -> None:
        """Take a grant back."""
        with self._database.write() as connection:
            connection.execute(
                delete(GrantRow).where(
                    GrantRow.owner == grant.owner,
                    GrantRow.bucket == grant.bucket,
                    GrantRow.prefix == grant.prefix,
                )
            )

    def grants(self, owner: str | None = None) -> list[Grant]:
        """Return an owner's grants, or everybody's."""
        query = select(GrantRow.owner, GrantRow.bucket, GrantRow.prefix, GrantRow.writable).order_by(
            GrantRow.owner, GrantRow.bucket
        )
        with self._database.read() as connection:
            rows = connection.execute(query if owner is None else query.where(GrantRow.owner == owner))
            return [Grant(*row) for row in rows]


def _hash(key: str) -> str:
    """Return the key's sha256: keys are 256 random bits, so a slow hash would protect nothing."""
    return hashlib.sha256(key.encode()).hexdigest()
