"""Workers say whether their model takes a prompt, so that the API can refuse one at once."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    # Workers register anew within seconds; until then nobody is refused for what an old row does not know.
    op.add_column(
        "workers", sa.Column("takes_prompt", sa.Boolean(), server_default=sa.text("true"), nullable=False)
    )


def downgrade() -> None:
    op.drop_column("workers", "takes_prompt")
