"""API keys and grants: who may call, and which S3 prefixes their jobs may read."""

from __future__ import annotations

import hashlib
import secrets
import string
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import ColumnElement, Connection, Row, Select, case, delete, func, insert, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from jobs.callers import USUAL_SCOPES, Caller, KeyState, Scope, read_scopes, scope_text
from jobs.errors import RequestError
from jobs.store.database import Database
from jobs.tables import ApiKeyRow, GrantRow

PREFIX = "cf_live_"
"""Begins every key, so that scanners for lost secrets know it: ``cf_live_[0-9a-f]{8}_[0-9A-Za-z]{43}``."""
_LETTERS = string.ascii_letters + string.digits
_SECRET_LENGTH = 43  # 256 bits
GRACE_S = 86400.0
"""How long a replaced key goes on unless somebody says otherwise."""
# A key's last use is written when the one that is known is older than this.
LAST_USED_S = 60.0


@dataclass(frozen=True)
class ApiKey:
    """What is known of a key; the key itself is shown once, when it is made."""

    id: str
    owner: str
    label: str
    scopes: frozenset[Scope]
    limits: Mapping[str, Any]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    successor: str | None

    @property
    def state(self) -> KeyState:
        """Whether it opens the API now."""
        if self.revoked_at is not None:
            return KeyState.REVOKED
        over = self.expires_at is not None and self.expires_at <= datetime.now(UTC)
        return KeyState.EXPIRED if over else KeyState.VALID


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

    def create(
        self,
        owner: str,
        label: str = "",
        *,
        scopes: Iterable[Scope] = USUAL_SCOPES,
        expires_s: float | None = None,
        limits: Mapping[str, Any] | None = None,
    ) -> tuple[ApiKey, str]:
        """Make a key for an owner; the second value is the key, which is not kept."""
        values = {"owner": owner, "label": label, "scopes": scope_text(scopes), "limits": dict(limits or {})}
        with self._database.write() as connection:
            return self._insert(connection, expires_s, values)

    def all(self, owner: str | None = None) -> list[ApiKey]:
        """Return all keys, or an owner's, oldest first."""
        query = select(*_COLUMNS).order_by(ApiKeyRow.created_at)
        with self._database.read() as connection:
            rows = connection.execute(query if owner is None else query.where(ApiKeyRow.owner == owner))
            return [_key(row) for row in rows]

    def revoke(self, key_id: str) -> ApiKey:
        """Refuse a key, and the sessions it began, from now on; raise ``RequestError`` not_found."""
        revoked = update(ApiKeyRow).where(ApiKeyRow.id == key_id)
        revoked = revoked.values(revoked_at=func.coalesce(ApiKeyRow.revoked_at, self._database.now()))
        with self._database.write() as connection:
            row = connection.execute(revoked.returning(*_COLUMNS)).first()
        if row is None:
            raise _no_key(key_id)
        return _key(row)

    def rotate(self, key_id: str, grace_s: float = GRACE_S) -> tuple[ApiKey, str]:
        """Make a key that does what this one does, which goes on for ``grace_s`` seconds at most.

        The new one lives for as long as the old one was made for. Raises ``RequestError`` not_found, and
        invalid_request for a key that is over or has a successor already.
        """
        with self._database.write() as connection:
            query = select(ApiKeyRow).where(ApiKeyRow.id == key_id).with_for_update()
            old = connection.execute(query).first()
            if old is None:
                raise _no_key(key_id)
            if old.successor is not None:
                raise RequestError("invalid_request", f"key {key_id} was replaced by {old.successor} already")
            valid = select(ApiKeyRow.id).where(ApiKeyRow.id == key_id, *self._valid())
            if connection.execute(valid).first() is None:
                raise RequestError("invalid_request", f"key {key_id} is over; make a new one")
            life = (old.expires_at - old.created_at).total_seconds() if old.expires_at else None
            values = {name: getattr(old, name) for name in ("owner", "label", "scopes", "limits")}
            made, key = self._insert(connection, life, values)
            end = self._database.now(grace_s)
            ends = case((ApiKeyRow.expires_at < end, ApiKeyRow.expires_at), else_=end)
            connection.execute(
                update(ApiKeyRow).where(ApiKeyRow.id == key_id).values(expires_at=ends, successor=made.id)
            )
        return made, key

    def set_limits(self, key_id: str, changes: Mapping[str, Any], usual: Collection[str] = ()) -> ApiKey:
        """Change limits of a key by name, ``None`` lifting one; the ``usual`` ones are again the settings'.

        Raises ``RequestError`` not_found.
        """
        with self._database.write() as connection:
            query = select(ApiKeyRow.limits).where(ApiKeyRow.id == key_id).with_for_update()
            row = connection.execute(query).first()
            if row is None:
                raise _no_key(key_id)
            limits = {**(row.limits or {}), **changes}
            kept = {name: limit for name, limit in limits.items() if name not in usual}
            changed = update(ApiKeyRow).where(ApiKeyRow.id == key_id).values(limits=kept)
            return _key(connection.execute(changed.returning(*_COLUMNS)).one())

    def caller(self, key: str) -> Caller | None:
        """Return who calls with a key, or ``None`` for unknown, expired and revoked ones; note its use."""
        row = self.use(select(*CALLER_COLUMNS).where(ApiKeyRow.hash == hashed(key)))
        return caller_of(row, row.expires_at) if row else None

    def use(self, query: Select[Any]) -> Row[Any] | None:
        """Return what a query for ``CALLER_COLUMNS`` finds if the key is valid; note that the key is used."""
        with self._database.read() as connection:
            stale = or_(
                ApiKeyRow.last_used_at.is_(None), ApiKeyRow.last_used_at < self._database.now(-LAST_USED_S)
            )
            row = connection.execute(query.where(*self._valid()).add_columns(stale.label("stale"))).first()
        if row is not None and row.stale:
            with self._database.write() as connection:
                used = update(ApiKeyRow).where(ApiKeyRow.id == row.id)
                connection.execute(used.values(last_used_at=self._database.now()))
        return row

    def any_valid(self) -> bool:
        """Whether there is a key that opens the API."""
        with self._database.read() as connection:
            found = connection.execute(select(ApiKeyRow.id).where(*self._valid()).limit(1))
            return found.first() is not None

    def _valid(self) -> tuple[ColumnElement[bool], ...]:
        now = self._database.now()
        return (
            ApiKeyRow.revoked_at.is_(None),
            or_(ApiKeyRow.expires_at.is_(None), ApiKeyRow.expires_at > now),
        )

    def _insert(
        self, connection: Connection, expires_s: float | None, values: Mapping[str, Any]
    ) -> tuple[ApiKey, str]:
        key_id = secrets.token_hex(4)
        secret = "".join(secrets.choice(_LETTERS) for _ in range(_SECRET_LENGTH))
        key = f"{PREFIX}{key_id}_{secret}"
        now = self._database.now
        times = {"created_at": now(), "expires_at": None if expires_s is None else now(expires_s)}
        made = insert(ApiKeyRow).values(id=key_id, hash=hashed(key), **times, **values)
        return _key(connection.execute(made.returning(*_COLUMNS)).one()), key

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


_COLUMNS = (
    ApiKeyRow.id,
    ApiKeyRow.owner,
    ApiKeyRow.label,
    ApiKeyRow.scopes,
    ApiKeyRow.limits,
    ApiKeyRow.created_at,
    ApiKeyRow.expires_at,
    ApiKeyRow.revoked_at,
    ApiKeyRow.last_used_at,
    ApiKeyRow.successor,
)
CALLER_COLUMNS = (ApiKeyRow.id, ApiKeyRow.owner, ApiKeyRow.scopes, ApiKeyRow.limits, ApiKeyRow.expires_at)


def _key(row: Row[Any]) -> ApiKey:
    values = dict(row._mapping)
    return ApiKey(**values | {"scopes": read_scopes(row.scopes), "limits": row.limits or {}})


def caller_of(row: Row[Any], expires_at: datetime | None) -> Caller:
    """Return the caller that ``CALLER_COLUMNS`` say."""
    return Caller(row.owner, read_scopes(row.scopes), row.id, expires_at, row.limits or {})


def _no_key(key_id: str) -> RequestError:
    return RequestError("not_found", f"there is no key {key_id}")


def hashed(secret: str) -> str:
    """Return a secret's sha256: it is 256 random bits, so a slow hash would protect nothing."""
    return hashlib.sha256(secret.encode()).hexdigest()
