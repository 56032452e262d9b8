"""The market as revision 0002 makes it on PostgreSQL; frozen, whatever coordinator.store.tables says later."""

# ruff: noqa: E501 - as compiled

STATEMENTS = [
    """
CREATE TABLE account (
    id VARCHAR(64) NOT NULL,
    name VARCHAR(64) NOT NULL,
    created_ms BIGINT NOT NULL,
    CONSTRAINT account_pk PRIMARY KEY (id),
    CONSTRAINT account_name_uq UNIQUE (name)
)
""",
    """
CREATE TABLE counter (
    name VARCHAR(32) NOT NULL,
    value BIGINT NOT NULL,
    CONSTRAINT counter_pk PRIMARY KEY (name)
)
""",
    """
CREATE TABLE request (
    account_id VARCHAR(64) NOT NULL,
    request_id VARCHAR(36) NOT NULL,
    fingerprint BYTEA NOT NULL,
    answer VARCHAR(128) NOT NULL,
    CONSTRAINT request_pk PRIMARY KEY (account_id, request_id)
)
""",
    """
CREATE TABLE account_role (
    account_id VARCHAR(64) NOT NULL,
    role VARCHAR(16) NOT NULL CONSTRAINT account_role_role_ck CHECK (role IN ('buyer', 'operator', 'seller')),
    CONSTRAINT account_role_pk PRIMARY KEY (account_id, role),
    CONSTRAINT account_role_account_id_fk FOREIGN KEY(account_id) REFERENCES account (id)
)
""",
    """
CREATE TABLE api_token (
    digest BYTEA NOT NULL,
    account_id VARCHAR(64) NOT NULL,
    created_ms BIGINT NOT NULL,
    expires_ms BIGINT NOT NULL,
    revoked_ms BIGINT,
    CONSTRAINT api_token_pk PRIMARY KEY (digest),
    CONSTRAINT api_token_account_id_fk FOREIGN KEY(account_id) REFERENCES account (id)
)
""",
    """
CREATE INDEX api_token_account_id_ix ON api_token (account_id)
""",
    """
CREATE TABLE enrolment_token (
    digest BYTEA NOT NULL,
    account_id VARCHAR(64) NOT NULL,
    expires_ms BIGINT NOT NULL,
    host_id VARCHAR(64),
    key_digest BYTEA,
    CONSTRAINT enrolment_token_pk PRIMARY KEY (digest),
    CONSTRAINT enrolment_token_use_ck CHECK ((host_id IS NULL) = (key_digest IS NULL)),
    CONSTRAINT enrolment_token_account_id_fk FOREIGN KEY(account_id) REFERENCES account (id)
)
""",
    """
CREATE TABLE host (
    id VARCHAR(64) NOT NULL,
    account_id VARCHAR(64) NOT NULL,
    state VARCHAR(16) NOT NULL CONSTRAINT host_state_ck CHECK (state IN ('lost', 'online', 'suspect')),
    reason TEXT NOT NULL,
    since_ms BIGINT NOT NULL,
    facts JSON NOT NULL,
    terms JSON NOT NULL,
    hold VARCHAR(16) NOT NULL CONSTRAINT host_hold_ck CHECK (hold IN ('draining', 'none', 'paused', 'quarantined')),
    hold_reason TEXT NOT NULL,
    hold_since_ms BIGINT NOT NULL,
    reliability_ppm INTEGER NOT NULL CONSTRAINT host_reliability_ck CHECK (reliability_ppm BETWEEN 0 AND 1000000),
    seen_boot_id VARCHAR(64) NOT NULL,
    seen_boot_ms BIGINT NOT NULL,
    seen_wall_ms BIGINT NOT NULL,
    CONSTRAINT host_pk PRIMARY KEY (id),
    CONSTRAINT host_account_id_fk FOREIGN KEY(account_id) REFERENCES account (id)
)
""",
    """
CREATE INDEX host_account_id_ix ON host (account_id)
""",
    """
CREATE TABLE job (
    id VARCHAR(64) NOT NULL,
    account_id VARCHAR(64) NOT NULL,
    state VARCHAR(16) NOT NULL CONSTRAINT job_state_ck CHECK (state IN ('cancelled', 'expired', 'failed', 'queued', 'running', 'starting', 'succeeded')),
    cause VARCHAR(16) CONSTRAINT job_cause_ck CHECK (cause IN ('buyer', 'host', 'platform', 'unknown')),
    detail TEXT NOT NULL,
    spec JSON NOT NULL,
    submitted_ms BIGINT NOT NULL,
    queued_ms BIGINT NOT NULL,
    ended_ms BIGINT,
    charged_micro BIGINT NOT NULL,
    budget_micro BIGINT NOT NULL,
    retries_used INTEGER NOT NULL,
    exit_code INTEGER,
    CONSTRAINT job_pk PRIMARY KEY (id),
    CONSTRAINT job_ended_ck CHECK ((state IN ('cancelled', 'expired', 'failed', 'succeeded')) = (ended_ms IS NOT NULL)),
    CONSTRAINT job_budget_ck CHECK (charged_micro BETWEEN 0 AND budget_micro),
    CONSTRAINT job_account_id_fk FOREIGN KEY(account_id) REFERENCES account (id)
)
""",
    """
CREATE INDEX job_account_id_ix ON job (account_id, id)
""",
    """
CREATE INDEX job_live_ix ON job (state, id) WHERE state IN ('queued', 'running', 'starting')
""",
    """
CREATE TABLE attempt (
    id VARCHAR(64) NOT NULL,
    job_id VARCHAR(64) NOT NULL,
    epoch BIGINT NOT NULL,
    host_id VARCHAR(64) NOT NULL,
    seller_account_id VARCHAR(64) NOT NULL,
    isolation INTEGER NOT NULL,
    gpus JSON NOT NULL,
    state VARCHAR(16) NOT NULL CONSTRAINT attempt_state_ck CHECK (state IN ('assigned', 'ended', 'preparing', 'running', 'stopping')),
    hour_price_micro BIGINT NOT NULL,
    fee_ppm INTEGER NOT NULL,
    run_ms_affordable BIGINT NOT NULL,
    run_ms_max BIGINT NOT NULL,
    paid_through_ms BIGINT NOT NULL,
    warned BOOLEAN NOT NULL,
    stop_reason VARCHAR(32) CONSTRAINT attempt_stop_reason_ck CHECK (stop_reason IN ('budget_spent', 'cancelled', 'claim_refused', 'command_unstartable', 'exited', 'gpu_lost', 'host_forgot', 'host_lost', 'image_unavailable', 'out_of_memory', 'paid_through', 'reclaimed', 'replaced', 'start_failed', 'superseded', 'time_limit')),
    end_reason VARCHAR(32) CONSTRAINT attempt_end_reason_ck CHECK (end_reason IN ('budget_spent', 'cancelled', 'claim_refused', 'command_unstartable', 'exited', 'gpu_lost', 'host_forgot', 'host_lost', 'image_unavailable', 'out_of_memory', 'paid_through', 'reclaimed', 'replaced', 'start_failed', 'superseded', 'time_limit')),
    cause VARCHAR(16) CONSTRAINT attempt_cause_ck CHECK (cause IN ('buyer', 'host', 'platform', 'unknown')),
    exit_code INTEGER,
    detail TEXT NOT NULL,
    assigned JSON NOT NULL,
    container_id VARCHAR(128) NOT NULL,
    host_boot_id VARCHAR(64) NOT NULL,
    sighted JSON,
    stop_asked JSON,
    witnessed_ms BIGINT NOT NULL,
    run_ms_reported BIGINT NOT NULL,
    usage_number BIGINT NOT NULL,
    usage_end_ms BIGINT NOT NULL,
    usage_digest BYTEA NOT NULL,
    billed_ms BIGINT NOT NULL,
    reported_end JSON,
    lie TEXT NOT NULL,
    log_offset BIGINT NOT NULL,
    log_totals JSON,
    log_state VARCHAR(16) NOT NULL,
    CONSTRAINT attempt_pk PRIMARY KEY (id),
    CONSTRAINT attempt_job_id_epoch_uq UNIQUE (job_id, epoch),
    CONSTRAINT attempt_ended_ck CHECK ((state = 'ended') = (end_reason IS NOT NULL)),
    CONSTRAINT attempt_cause_known_ck CHECK ((end_reason IS NULL) = (cause IS NULL)),
    CONSTRAINT attempt_log_state_ck CHECK (log_state IN ('open', 'complete', 'incomplete')),
    CONSTRAINT attempt_billed_ck CHECK (billed_ms <= run_ms_affordable AND billed_ms <= witnessed_ms),
    CONSTRAINT attempt_job_id_fk FOREIGN KEY(job_id) REFERENCES job (id),
    CONSTRAINT attempt_host_id_fk FOREIGN KEY(host_id) REFERENCES host (id),
    CONSTRAINT attempt_seller_account_id_fk FOREIGN KEY(seller_account_id) REFERENCES account (id)
)
""",
    """
CREATE INDEX attempt_host_ix ON attempt (host_id) WHERE state <> 'ended' OR log_state = 'open'
""",
    """
CREATE INDEX attempt_lie_ix ON attempt (host_id) WHERE lie <> ''
""",
    """
CREATE UNIQUE INDEX attempt_one_live_per_job_uq ON attempt (job_id) WHERE state IN ('assigned', 'preparing', 'running', 'stopping')
""",
    """
CREATE TABLE event (
    number BIGINT NOT NULL,
    job_id VARCHAR(64),
    host_id VARCHAR(64),
    account_id VARCHAR(64),
    attempt_id VARCHAR(64) NOT NULL,
    kind VARCHAR(32) NOT NULL CONSTRAINT event_kind_ck CHECK (kind IN ('account_created', 'assigned', 'attempt_ended', 'billed', 'budget_low', 'credited', 'deposited', 'ended', 'extended', 'host_enrolled', 'host_state', 'preparing', 'refused_claim', 'requeued', 'started', 'stop_asked', 'submitted', 'token_created')),
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
    """
CREATE INDEX event_account_ix ON event (account_id, number)
""",
    """
CREATE INDEX event_host_ix ON event (host_id, number)
""",
    """
CREATE INDEX event_job_ix ON event (job_id, number)
""",
    """
CREATE TABLE attempt_gpu (
    gpu_uuid VARCHAR(128) NOT NULL,
    attempt_id VARCHAR(64) NOT NULL,
    CONSTRAINT attempt_gpu_pk PRIMARY KEY (gpu_uuid),
    CONSTRAINT attempt_gpu_attempt_id_fk FOREIGN KEY(attempt_id) REFERENCES attempt (id)
)
""",
    """
CREATE INDEX attempt_gpu_attempt_id_ix ON attempt_gpu (attempt_id)
""",
    """
CREATE TABLE bill_line (
    attempt_id VARCHAR(64) NOT NULL,
    number BIGINT NOT NULL,
    start_ms BIGINT NOT NULL,
    end_ms BIGINT NOT NULL,
    gpus JSON NOT NULL,
    previous_digest BYTEA NOT NULL,
    digest BYTEA NOT NULL,
    witnessed_ms BIGINT NOT NULL,
    billed_through_ms BIGINT NOT NULL,
    charge_micro BIGINT NOT NULL,
    fee_micro BIGINT NOT NULL,
    earning_micro BIGINT NOT NULL,
    transfer_id VARCHAR(36) NOT NULL,
    CONSTRAINT bill_line_pk PRIMARY KEY (attempt_id, number),
    CONSTRAINT bill_line_split_ck CHECK (fee_micro + earning_micro = charge_micro),
    CONSTRAINT bill_line_transfer_ck CHECK ((charge_micro = 0) = (transfer_id = '')),
    CONSTRAINT bill_line_witnessed_ck CHECK (billed_through_ms <= end_ms AND billed_through_ms <= witnessed_ms),
    CONSTRAINT bill_line_attempt_id_fk FOREIGN KEY(attempt_id) REFERENCES attempt (id)
)
""",
    """
CREATE TABLE log_chunk (
    attempt_id VARCHAR(64) NOT NULL,
    offset_bytes BIGINT NOT NULL,
    stream INTEGER NOT NULL CONSTRAINT log_chunk_stream_ck CHECK (stream IN (1, 2)),
    data BYTEA NOT NULL,
    CONSTRAINT log_chunk_pk PRIMARY KEY (attempt_id, offset_bytes),
    CONSTRAINT log_chunk_attempt_id_fk FOREIGN KEY(attempt_id) REFERENCES attempt (id)
)
""",
    """
CREATE TABLE credit (
    attempt_id VARCHAR(64) NOT NULL,
    number BIGINT NOT NULL,
    earning_micro BIGINT NOT NULL,
    fee_micro BIGINT NOT NULL,
    transfer_id VARCHAR(36) NOT NULL,
    reason TEXT NOT NULL,
    CONSTRAINT credit_pk PRIMARY KEY (attempt_id, number),
    CONSTRAINT credit_attempt_id_number_fk FOREIGN KEY(attempt_id, number) REFERENCES bill_line (attempt_id, number),
    CONSTRAINT credit_amount_ck CHECK (earning_micro >= 0 AND fee_micro >= 0 AND earning_micro + fee_micro > 0)
)
""",
    """
CREATE FUNCTION market_append_only() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'market: % is append-only', TG_TABLE_NAME; END $$
""",
    """
CREATE TRIGGER bill_line_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON bill_line FOR EACH STATEMENT EXECUTE FUNCTION market_append_only()
""",
    """
CREATE TRIGGER credit_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON credit FOR EACH STATEMENT EXECUTE FUNCTION market_append_only()
""",
    """
CREATE TRIGGER event_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON event FOR EACH STATEMENT EXECUTE FUNCTION market_append_only()
""",
    """
CREATE TRIGGER log_chunk_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON log_chunk FOR EACH STATEMENT EXECUTE FUNCTION market_append_only()
""",
    """
CREATE TRIGGER request_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON request FOR EACH STATEMENT EXECUTE FUNCTION market_append_only()
""",
    """
INSERT INTO counter (name, value) VALUES ('event', 0)
""",
]
