"""Indexes that serve one chunk of one job, and the idempotency key of one job."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"

LEASED = sa.text("state = 'leased'")


def upgrade() -> None:
    _index_leased("job_id", "number")
    op.create_index("idempotency_keys_by_job", "idempotency_keys", ["job_id"])


def downgrade() -> None:
    op.drop_index("idempotency_keys_by_job", "idempotency_keys")
    _index_leased("job_id")


def _index_leased(*columns: str) -> None:
    op.drop_index("chunks_leased_by_job", "chunks")
    op.create_index(
        "chunks_leased_by_job", "chunks", list(columns), postgresql_where=LEASED, sqlite_where=LEASED
    )
