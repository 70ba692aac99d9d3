"""Alembic's entry: runs on the connection it is given, else on the configured database."""

from alembic import context
from sqlalchemy import Connection

from jobs.settings import load_settings
from jobs.store.database import open_database
from jobs.tables import Base


def run(connection: Connection) -> None:
    """Run migrations on an open connection."""
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=connection.dialect.name == "sqlite",
        compare_type=True,
    )
    with context.begin_transaction():
        context.run_migrations()


if (given := context.config.attributes.get("connection")) is not None:
    run(given)
else:
    with open_database(load_settings()).write() as opened:
        run(opened)
