"""Jobs prepared in the background, the caption cache, and indexes of what is due."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "expansions",
        sa.Column("job_id", sa.String(length=40), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("parameters", sa.JSON(), nullable=False),
        sa.Column("cursor", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("slices", sa.Integer(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("not_before", sa.DateTime(timezone=True), nullable=False),
        sa.Column("holder", sa.String(), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"]),
        sa.PrimaryKeyConstraint("job_id"),
    )
    op.create_table(
        "cached_captions",
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("owner", sa.String(length=64), nullable=False),
        sa.Column("job_id", sa.String(length=40), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("key"),
    )
    op.create_index("cached_captions_by_job", "cached_captions", ["job_id"])
    op.drop_index("jobs_active", table_name="jobs")
    _partial_index("jobs_active", "jobs", ["owner", "model"], "status in ('preparing', 'queued', 'running')")
    _partial_index("jobs_canceling", "jobs", ["id"], "status = 'canceling'")
    _partial_index("chunks_postponed", "chunks", ["not_before"], "state = 'open' and not_before is not null")


def downgrade() -> None:
    op.drop_index("chunks_postponed", table_name="chunks")
    op.drop_index("jobs_canceling", table_name="jobs")
    op.drop_index("jobs_active", table_name="jobs")
    _partial_index("jobs_active", "jobs", ["owner", "status"], "status in ('queued', 'running', 'canceling')")
    op.drop_table("cached_captions")
    op.drop_table("expansions")


def _partial_index(name: str, table: str, columns: list[str], condition: str) -> None:
    where = sa.text(condition)
    op.create_index(name, table, columns, postgresql_where=where, sqlite_where=where)
