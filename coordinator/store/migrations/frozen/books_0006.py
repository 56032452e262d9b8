"""What revision 0006 changes; frozen, whatever coordinator.store.tables says later."""

# ruff: noqa: E501 - as compiled

_KINDS = "'account_created', 'assigned', 'attempt_ended', 'billed', 'budget_low', 'cap_set', 'credited', 'deposited', 'ended', 'extended', 'host_enrolled', 'host_state', 'preparing', 'refunded', 'refused_claim', 'requeued', 'started', 'stop_asked', 'submitted', 'token_created', 'token_revoked', 'withdrawn'"

_BOTH = [
    """
CREATE TABLE spending_cap (
    account_id VARCHAR(64) NOT NULL,
    month_micro BIGINT NOT NULL CONSTRAINT spending_cap_month_ck CHECK (month_micro > 0),
    alert_percent INTEGER NOT NULL CONSTRAINT spending_cap_alert_ck CHECK (alert_percent BETWEEN 1 AND 100),
    CONSTRAINT spending_cap_pk PRIMARY KEY (account_id),
    CONSTRAINT spending_cap_account_id_fk FOREIGN KEY(account_id) REFERENCES account (id)
)
""",
    "CREATE INDEX attempt_seller_ix ON attempt (seller_account_id, id)",
]

# SQLite changes no constraint and keeps the text of a table: both are made anew and filled from the old ones.
SQLITE = [
    *_BOTH,
    "ALTER TABLE api_token RENAME TO api_token_before",
    """
CREATE TABLE api_token (
    digest BLOB NOT NULL,
    account_id VARCHAR(64) NOT NULL,
    created_ms BIGINT NOT NULL,
    expires_ms BIGINT NOT NULL,
    revoked_ms BIGINT,
    label VARCHAR(64) NOT NULL,
    CONSTRAINT api_token_pk PRIMARY KEY (digest),
    CONSTRAINT api_token_account_id_fk FOREIGN KEY(account_id) REFERENCES account (id)
)
""",
    "INSERT INTO api_token SELECT digest, account_id, created_ms, expires_ms, revoked_ms, '' FROM api_token_before",
    "DROP TABLE api_token_before",
    "CREATE INDEX api_token_account_id_ix ON api_token (account_id)",
    "ALTER TABLE event RENAME TO event_before",
    f"""
CREATE TABLE event (
    number BIGINT NOT NULL,
    job_id VARCHAR(64),
    host_id VARCHAR(64),
    account_id VARCHAR(64),
    attempt_id VARCHAR(64) NOT NULL,
    kind VARCHAR(32) NOT NULL CONSTRAINT event_kind_ck CHECK (kind IN ({_KINDS})),
    happened_ms BIGINT NOT NULL,
    text TEXT NOT NULL,
    job_state VARCHAR(16) CONSTRAINT event_job_state_ck CHECK (job_state IN ('cancelled', 'expired', 'failed', 'queued', 'running', 'starting', 'succeeded')),
    cause VARCHAR(16) CONSTRAINT event_cause_ck CHECK (cause IN ('buyer', 'host', 'platform', 'unknown')),
    bill_line_number BIGINT,
    CONSTRAINT event_pk PRIMARY KEY (number),
    CONSTRAINT event_subject_ck CHECK (CASE WHEN job_id IS NULL THEN 0 ELSE 1 END + CASE WHEN host_id IS NULL THEN 0 ELSE 1 END + CASE WHEN account_id IS NULL THEN 0 ELSE 1 END = 1),
    CONSTRAINT event_state_of_job_ck CHECK ((job_id IS NULL) = (job_state IS NULL)),
    CONSTRAINT event_job_id_fk FOREIGN KEY(job_id) REFERENCES job (id),
    CONSTRAINT event_host_id_fk FOREIGN KEY(host_id) REFERENCES host (id),
    CONSTRAINT event_account_id_fk FOREIGN KEY(account_id) REFERENCES account (id)
)
""",
    "INSERT INTO event SELECT number, job_id, host_id, account_id, attempt_id, kind, happened_ms, text, job_state, cause, bill_line_number FROM event_before",
    # With it go its indexes and the triggers that keep it from being changed.
    "DROP TABLE event_before",
    "CREATE INDEX event_account_ix ON event (account_id, number) WHERE account_id IS NOT NULL",
    "CREATE INDEX event_host_ix ON event (host_id, number) WHERE host_id IS NOT NULL",
    "CREATE INDEX event_job_ix ON event (job_id, number)",
    "CREATE TRIGGER event_no_update BEFORE UPDATE ON event BEGIN SELECT RAISE(ABORT, 'market: event is append-only'); END",
    "CREATE TRIGGER event_no_delete BEFORE DELETE ON event BEGIN SELECT RAISE(ABORT, 'market: event is append-only'); END",
]

POSTGRESQL = [
    *_BOTH,
    "ALTER TABLE api_token ADD COLUMN label VARCHAR(64) NOT NULL DEFAULT ''",
    "ALTER TABLE api_token ALTER COLUMN label DROP DEFAULT",
    "ALTER TABLE event DROP CONSTRAINT event_kind_ck",
    f"ALTER TABLE event ADD CONSTRAINT event_kind_ck CHECK (kind IN ({_KINDS}))",
]
