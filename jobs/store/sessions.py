"""Browser sessions: rows, so that every process knows them and they end with the key that began them."""

from __future__ import annotations

import secrets
from datetime import datetime

from sqlalchemy import delete, insert, select

from jobs.callers import Caller
from jobs.store.database import Database
from jobs.store.keys import CALLER_COLUMNS, KeyStore, caller_of, hashed
from jobs.tables import ApiKeyRow, SessionRow


class SessionStore:
    """Sessions by the hash of their cookie."""

    def __init__(self, database: Database, keys: KeyStore) -> None:
        self._database = database
        self._keys = keys

    def create(self, key_id: str, seconds: float) -> tuple[str, datetime]:
        """Begin a session with a key; return its token, which is not kept, and when it ends at the latest."""
        token = secrets.token_urlsafe(32)
        now = self._database.now
        row = {"key_id": key_id, "created_at": now(), "expires_at": now(seconds)}
        with self._database.write() as connection:
            made = insert(SessionRow).values(hash=hashed(token), **row).returning(SessionRow.expires_at)
            return token, connection.execute(made).scalar_one()

    def caller(self, token: str) -> Caller | None:
        """Return who calls in a session, or ``None`` where it or its key has ended; note the key's use."""
        query = (
            select(*CALLER_COLUMNS, SessionRow.expires_at.label("ends_at"))
            .join(SessionRow, SessionRow.key_id == ApiKeyRow.id)
            .where(SessionRow.hash == hashed(token), SessionRow.expires_at > self._database.now())
        )
        row = self._keys.use(query)
        return caller_of(row, min(row.ends_at, row.expires_at or row.ends_at)) if row else None

    def end(self, token: str) -> None:
        """End a session."""
        with self._database.write() as connection:
            connection.execute(delete(SessionRow).where(SessionRow.hash == hashed(token)))

    def forget_old(self) -> None:
        """Delete the rows of sessions that have ended."""
        with self._database.write() as connection:
            connection.execute(delete(SessionRow).where(SessionRow.expires_at < self._database.now()))
