"""Indexes that serve one chunk of one job, and the idempotency key of one job."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"

LEASED = sa.text("state = 'leased'")


def upgrade() -> None:
    # The old one goes last: without either, claims would read all chunks.
    _index_leased("chunks_leased_of_job", "job_id", "number")
    op.create_index("idempotency_keys_by_job", "idempotency_keys", ["job_id"])
    op.drop_index("chunks_leased_by_job", "chunks")


def downgrade() -> None:
    op.drop_index("idempotency_keys_by_job", "idempotency_keys")
    _index_leased("chunks_leased_by_job", "job_id")
    op.drop_index("chunks_leased_of_job", "chunks")


def _index_leased(name: str, *columns: str) -> None:
    op.create_index(name, "chunks", list(columns), postgresql_where=LEASED, sqlite_where=LEASED)
