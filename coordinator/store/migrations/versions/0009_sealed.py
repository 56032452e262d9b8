"""What of an order nobody may read, sealed with a key that is not in the database."""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_SQLITE = (
    "CREATE TABLE job_sealed (job_id VARCHAR(64) NOT NULL, box BLOB NOT NULL,"
    " CONSTRAINT job_sealed_pk PRIMARY KEY (job_id),"
    " CONSTRAINT job_sealed_job_id_fk FOREIGN KEY(job_id) REFERENCES job (id))"
)


def upgrade() -> None:
    connection = op.get_bind()
    is_sqlite = connection.dialect.name == "sqlite"
    connection.exec_driver_sql(_SQLITE if is_sqlite else _SQLITE.replace("BLOB", "BYTEA"))


def downgrade() -> None:
    raise NotImplementedError("what was bought and paid only moves forward: restore a backup instead")
