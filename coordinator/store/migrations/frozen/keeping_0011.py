"""What revision 0011 changes; frozen, whatever coordinator.store.tables says later."""

# ruff: noqa: E501 - as compiled

_REASONS = "'budget_spent', 'cancelled', 'claim_refused', 'command_unstartable', 'exited', 'gpu_lost', 'host_forgot', 'host_lost', 'image_unavailable', 'out_of_memory', 'paid_through', 'reclaimed', 'replaced', 'restored', 'start_failed', 'superseded', 'time_limit'"
_KINDS = "'account_created', 'assigned', 'attempt_ended', 'billed', 'budget_low', 'cap_set', 'credited', 'deposited', 'ended', 'extended', 'host_enrolled', 'host_state', 'preparing', 'refunded', 'refused_claim', 'requeued', 'restored', 'started', 'stop_asked', 'submitted', 'token_created', 'token_revoked', 'withdrawn'"

TABLES = [
    "ALTER TABLE strike ADD COLUMN run_ms BIGINT",
    """
CREATE TABLE restoration (
    number BIGINT NOT NULL,
    name VARCHAR(36) NOT NULL,
    restored_ms BIGINT NOT NULL,
    known_ms BIGINT NOT NULL,
    event_number BIGINT NOT NULL,
    events_left_out BIGINT NOT NULL,
    transfer_seq BIGINT NOT NULL,
    seal_hash {bytes} NOT NULL,
    jobs BIGINT NOT NULL,
    attempts BIGINT NOT NULL,
    CONSTRAINT restoration_pk PRIMARY KEY (number)
)
""",
    """
CREATE TABLE archived (
    job_id VARCHAR(64) NOT NULL,
    part VARCHAR(16) NOT NULL CONSTRAINT archived_part_ck CHECK (part IN ('output', 'records')),
    file VARCHAR(255) NOT NULL,
    sha256 {bytes} NOT NULL,
    lines BIGINT NOT NULL,
    events BIGINT NOT NULL,
    charge_micro BIGINT NOT NULL,
    archived_ms BIGINT NOT NULL,
    CONSTRAINT archived_pk PRIMARY KEY (job_id, part),
    CONSTRAINT archived_job_id_fk FOREIGN KEY(job_id) REFERENCES job (id)
)
""",
    "INSERT INTO counter (name, value) VALUES ('oldest_program', 10)",
]
_HAS_LEFT = {
    "bill_line": "EXISTS (SELECT 1 FROM archived JOIN attempt ON attempt.job_id = archived.job_id WHERE attempt.id = OLD.attempt_id AND archived.part = 'records')",
    "event": "EXISTS (SELECT 1 FROM archived WHERE archived.job_id = OLD.job_id AND archived.part = 'records')",
    "log_chunk": "EXISTS (SELECT 1 FROM archived JOIN attempt ON attempt.job_id = archived.job_id WHERE attempt.id = OLD.attempt_id AND archived.part = 'output')",
}
_NEW = ("archived", "restoration")

SQLITE_GUARDS = [
    *(
        f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} BEGIN SELECT RAISE(ABORT, 'market: {table} is append-only'); END"
        for table in _NEW
        for verb in ("UPDATE", "DELETE")
    ),
    *(f"DROP TRIGGER {table}_no_delete" for table in _HAS_LEFT),
    *(
        f"CREATE TRIGGER {table}_no_delete BEFORE DELETE ON {table} WHEN NOT {condition} BEGIN SELECT RAISE(ABORT, 'market: {table} is append-only'); END"
        for table, condition in _HAS_LEFT.items()
    ),
]
# SQLite changes no constraint. A CHECK that only takes in more values changes nothing of what is stored, so the
# text of it may be changed in place (sqlite.org, "Making Other Kinds Of Table Schema Changes"): to make tables of
# millions of rows anew would take minutes.
SQLITE_CHECKS = [
    ("attempt", "'replaced', 'start_failed'", "'replaced', 'restored', 'start_failed'"),
    ("event", "'requeued', 'started'", "'requeued', 'restored', 'started'"),
]

POSTGRESQL = [
    *(
        f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} FOR EACH STATEMENT EXECUTE FUNCTION market_append_only()"
        for table in _NEW
    ),
    *(f"DROP TRIGGER {table}_append_only ON {table}" for table in _HAS_LEFT),
    *(
        statement
        for table, condition in _HAS_LEFT.items()
        for statement in (
            f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR TRUNCATE ON {table} FOR EACH STATEMENT EXECUTE FUNCTION market_append_only()",
            f"CREATE FUNCTION {table}_has_left() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF {condition} THEN RETURN OLD; END IF; RAISE EXCEPTION 'market: {table} is append-only'; END $$",
            f"CREATE TRIGGER {table}_only_archived BEFORE DELETE ON {table} FOR EACH ROW EXECUTE FUNCTION {table}_has_left()",
        )
    ),
    "ALTER TABLE attempt DROP CONSTRAINT attempt_stop_reason_ck",
    f"ALTER TABLE attempt ADD CONSTRAINT attempt_stop_reason_ck CHECK (stop_reason IN ({_REASONS}))",
    "ALTER TABLE attempt DROP CONSTRAINT attempt_end_reason_ck",
    f"ALTER TABLE attempt ADD CONSTRAINT attempt_end_reason_ck CHECK (end_reason IN ({_REASONS}))",
    "ALTER TABLE event DROP CONSTRAINT event_kind_ck",
    f"ALTER TABLE event ADD CONSTRAINT event_kind_ck CHECK (kind IN ({_KINDS}))",
]
