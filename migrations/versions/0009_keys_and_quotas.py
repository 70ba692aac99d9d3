"""Keys with scopes, expiry, limits and successors; browser sessions; what owners used of their quotas."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

KEY_COLUMNS = ("scopes", "limits", "expires_at", "last_used_at", "successor")


def upgrade() -> None:
    # A key of before may do what there was to do before: administering is new.
    scopes = sa.Column("scopes", sa.String(length=64), server_default="submit read", nullable=False)
    op.add_column("api_keys", scopes)
    op.add_column("api_keys", sa.Column("limits", sa.JSON(), nullable=True))
    op.add_column("api_keys", sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("api_keys", sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("api_keys", sa.Column("successor", sa.String(length=16), nullable=True))
    op.create_table(
        "sessions",
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("key_id", sa.String(length=16), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("hash"),
    )
    op.create_table(
        "usage",
        sa.Column("owner", sa.String(length=64), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("images", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("owner"),
    )
    op.add_column("expansions", sa.Column("limits", sa.JSON(), nullable=True))


def downgrade() -> None:
    op.drop_column("expansions", "limits")
    op.drop_table("usage")
    op.drop_table("sessions")
    for name in reversed(KEY_COLUMNS):
        op.drop_column("api_keys", name)
