"""Files that clients send to the object store themselves."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "direct_uploads",
        sa.Column("batch", sa.String(length=40), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("owner", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("content_type", sa.String(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("token_hash", sa.String(length=64), nullable=True),
        sa.Column("job_id", sa.String(length=40), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("url_expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("batch", "number"),
    )
    op.create_index(
        "direct_uploads_by_job",
        "direct_uploads",
        ["job_id"],
        postgresql_where=sa.text("job_id is not null"),
        sqlite_where=sa.text("job_id is not null"),
    )
    op.create_index("direct_uploads_expiring", "direct_uploads", ["expires_at"])


def downgrade() -> None:
    op.drop_table("direct_uploads")
