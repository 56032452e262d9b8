"""Run by Alembic, with the connection and the metadata that coordinator.store.migrate hands over."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=context.config.attributes["metadata"],
    # SQLite can roll back DDL; Alembic assumes that it cannot, because its driver used to commit on its own.
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
