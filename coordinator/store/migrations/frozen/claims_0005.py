"""GPUs that belong to hosts, and what hosts claimed, as revision 0005 makes them on either database."""

# ruff: noqa: E501 - as compiled

STATEMENTS = [
    "DROP INDEX attempt_lie_ix",
    "CREATE UNIQUE INDEX attempt_id_host_uq ON attempt (id, host_id)",
    """
CREATE TABLE gpu_owner (
    gpu_uuid VARCHAR(128) NOT NULL,
    host_id VARCHAR(64) NOT NULL,
    absent_ms BIGINT,
    CONSTRAINT gpu_owner_pk PRIMARY KEY (gpu_uuid),
    CONSTRAINT gpu_owner_host_id_fk FOREIGN KEY(host_id) REFERENCES host (id)
)
""",
    "CREATE INDEX gpu_owner_host_id_ix ON gpu_owner (host_id)",
    "CREATE UNIQUE INDEX gpu_owner_host_uq ON gpu_owner (gpu_uuid, host_id)",
    """
CREATE TABLE gpu_claim (
    gpu_uuid VARCHAR(128) NOT NULL,
    host_id VARCHAR(64) NOT NULL,
    first_ms BIGINT NOT NULL,
    CONSTRAINT gpu_claim_pk PRIMARY KEY (gpu_uuid, host_id),
    CONSTRAINT gpu_claim_gpu_uuid_fk FOREIGN KEY(gpu_uuid) REFERENCES gpu_owner (gpu_uuid),
    CONSTRAINT gpu_claim_host_id_fk FOREIGN KEY(host_id) REFERENCES host (id)
)
""",
    "CREATE INDEX gpu_claim_host_id_ix ON gpu_claim (host_id)",
    # What is sold now belongs to whom it is sold from; all else, to the host that names it next.
    "CREATE TABLE attempt_gpu_before AS"
    " SELECT g.gpu_uuid, g.attempt_id, a.host_id FROM attempt_gpu g JOIN attempt a ON a.id = g.attempt_id",
    "INSERT INTO gpu_owner (gpu_uuid, host_id) SELECT gpu_uuid, host_id FROM attempt_gpu_before",
    "DROP TABLE attempt_gpu",
    """
CREATE TABLE attempt_gpu (
    gpu_uuid VARCHAR(128) NOT NULL,
    attempt_id VARCHAR(64) NOT NULL,
    host_id VARCHAR(64) NOT NULL,
    CONSTRAINT attempt_gpu_pk PRIMARY KEY (gpu_uuid),
    CONSTRAINT attempt_gpu_gpu_uuid_host_id_fk FOREIGN KEY(gpu_uuid, host_id) REFERENCES gpu_owner (gpu_uuid, host_id),
    CONSTRAINT attempt_gpu_attempt_id_host_id_fk FOREIGN KEY(attempt_id, host_id) REFERENCES attempt (id, host_id)
)
""",
    "CREATE INDEX attempt_gpu_attempt_id_ix ON attempt_gpu (attempt_id)",
    "INSERT INTO attempt_gpu (gpu_uuid, attempt_id, host_id)"
    " SELECT gpu_uuid, attempt_id, host_id FROM attempt_gpu_before",
    "DROP TABLE attempt_gpu_before",
    """
CREATE TABLE strike (
    host_id VARCHAR(64) NOT NULL,
    number BIGINT NOT NULL,
    kind VARCHAR(32) NOT NULL CONSTRAINT strike_kind_ck CHECK (kind IN ('alive_after_end', 'false_claim', 'foreign_attempt', 'forgiven', 'other_epoch', 'taken_gpu', 'unknown_attempt')),
    subject VARCHAR(128) NOT NULL,
    detail TEXT NOT NULL,
    happened_ms BIGINT NOT NULL,
    CONSTRAINT strike_pk PRIMARY KEY (host_id, number),
    CONSTRAINT strike_host_id_kind_subject_uq UNIQUE (host_id, kind, subject),
    CONSTRAINT strike_host_id_fk FOREIGN KEY(host_id) REFERENCES host (id)
)
""",
    # Lies told before are still held against their hosts.
    "INSERT INTO strike (host_id, number, kind, subject, detail, happened_ms)"
    " SELECT a.host_id, row_number() OVER (PARTITION BY a.host_id ORDER BY a.id), 'false_claim', a.id, a.lie,"
    " coalesce(j.ended_ms, j.queued_ms) FROM attempt a JOIN job j ON j.id = a.job_id WHERE a.lie <> ''",
]

TRIGGERS = {
    "sqlite": [
        "CREATE TRIGGER strike_no_update BEFORE UPDATE ON strike BEGIN SELECT RAISE(ABORT, 'market: strike is append-only'); END",
        "CREATE TRIGGER strike_no_delete BEFORE DELETE ON strike BEGIN SELECT RAISE(ABORT, 'market: strike is append-only'); END",
    ],
    "postgresql": [
        "CREATE TRIGGER strike_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON strike FOR EACH STATEMENT EXECUTE FUNCTION market_append_only()",
    ],
}
