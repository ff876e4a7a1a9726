"""Alembic runs inside the master's own connection; there is no alembic.ini to keep in step with the settings."""

from alembic import context

from services.master.tables import Base

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
