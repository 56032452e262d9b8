"""The ledger as revision 0001 makes it on PostgreSQL; frozen, whatever ledger.tables says later."""

# ruff: noqa: E501 - as compiled

STATEMENTS = [
    """
CREATE TABLE ledger_account (
    id BIGINT NOT NULL,
    code TEXT NOT NULL,
    kind SMALLINT NOT NULL,
    asset TEXT NOT NULL,
    floor_micro BIGINT,
    balance_micro BIGINT DEFAULT 0 NOT NULL,
    seq BIGINT DEFAULT 0 NOT NULL,
    window_no BIGINT DEFAULT 0 NOT NULL,
    payer BIGINT,
    opened_ms BIGINT NOT NULL,
    closed_ms BIGINT,
    PRIMARY KEY (id),
    CONSTRAINT ledger_account_floor CHECK (floor_micro IS NULL OR balance_micro >= floor_micro),
    CONSTRAINT ledger_account_range CHECK (balance_micro BETWEEN -4611686018427387904 AND 4611686018427387904),
    CONSTRAINT ledger_account_closed CHECK (closed_ms IS NULL OR balance_micro = 0),
    CONSTRAINT ledger_account_kind CHECK (kind BETWEEN 1 AND 8),
    UNIQUE (code)
)
 WITH (fillfactor = 50)
""",
    """
CREATE TABLE ledger_refusal (
    id UUID NOT NULL,
    status TEXT NOT NULL,
    digest BYTEA NOT NULL,
    after_seq BIGINT NOT NULL,
    refused_ms BIGINT NOT NULL,
    PRIMARY KEY (id)
)
""",
    """
CREATE INDEX ledger_refusal_after ON ledger_refusal (after_seq)
""",
    """
CREATE TABLE ledger_seal (
    no BIGINT NOT NULL,
    first_seq BIGINT NOT NULL,
    last_seq BIGINT NOT NULL,
    last_account BIGINT NOT NULL,
    hash BYTEA NOT NULL,
    sealed_ms BIGINT NOT NULL,
    PRIMARY KEY (no),
    CONSTRAINT ledger_seal_range CHECK (first_seq >= 1 AND last_seq >= first_seq)
)
""",
    """
CREATE TABLE ledger_transfer (
    seq BIGINT NOT NULL,
    id UUID NOT NULL,
    kind SMALLINT NOT NULL,
    debit BIGINT NOT NULL,
    debit_seq BIGINT NOT NULL,
    debit_balance BIGINT NOT NULL,
    credit BIGINT NOT NULL,
    credit_seq BIGINT NOT NULL,
    credit_balance BIGINT NOT NULL,
    amount BIGINT NOT NULL,
    fee BIGINT NOT NULL,
    event_ms BIGINT NOT NULL,
    posted_ms BIGINT NOT NULL,
    fee_account BIGINT,
    fee_seq BIGINT,
    fee_balance BIGINT,
    window_no BIGINT,
    corrects BIGINT,
    ref TEXT NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (seq),
    CONSTRAINT ledger_transfer_kind CHECK (kind BETWEEN 1 AND 7),
    CONSTRAINT ledger_transfer_amount CHECK (amount BETWEEN 1 AND 9007199254740991),
    CONSTRAINT ledger_transfer_fee CHECK (fee BETWEEN -9007199254740991 AND amount),
    CONSTRAINT ledger_transfer_distinct CHECK (debit <> credit AND fee_account <> debit AND fee_account <> credit),
    CONSTRAINT ledger_transfer_fee_leg CHECK ((fee_account IS NULL) = (fee = 0) AND (fee_account IS NULL) = (fee_seq IS NULL) AND (fee_account IS NULL) = (fee_balance IS NULL)),
    CONSTRAINT ledger_transfer_corrects CHECK ((corrects IS NOT NULL) = (kind IN (6, 7)) AND corrects < seq),
    CONSTRAINT ledger_transfer_window CHECK (window_no IS NULL OR kind = 4),
    UNIQUE (id)
)
""",
    """
CREATE INDEX ledger_transfer_corrected ON ledger_transfer (corrects) WHERE corrects IS NOT NULL
""",
    """
CREATE INDEX ledger_transfer_credit ON ledger_transfer (credit, seq)
""",
    """
CREATE INDEX ledger_transfer_debit ON ledger_transfer (debit, seq)
""",
    """
CREATE INDEX ledger_transfer_fee ON ledger_transfer (fee_account, seq) WHERE fee_account IS NOT NULL
""",
    """
CREATE INDEX ledger_transfer_ref ON ledger_transfer (ref, seq) WHERE kind <> 4
""",
    """
CREATE VIEW ledger_leg AS
SELECT seq, debit AS account, 'debit' AS side, debit_seq AS account_seq, -amount AS delta,
       debit_balance AS balance
  FROM ledger_transfer
UNION ALL
SELECT seq, credit, 'credit', credit_seq, amount - fee, credit_balance FROM ledger_transfer
UNION ALL
SELECT seq, fee_account, 'fee', fee_seq, fee, fee_balance FROM ledger_transfer WHERE fee_account IS NOT NULL
""",
    """
CREATE FUNCTION ledger_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'ledger: % of % is refused', TG_OP, TG_TABLE_NAME
    USING ERRCODE = 'integrity_constraint_violation';
END $$
""",
    """
CREATE FUNCTION ledger_account_born() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (
    SELECT FROM born WHERE balance_micro <> 0 OR seq <> 0 OR window_no <> 0 OR closed_ms IS NOT NULL
  ) THEN
    RAISE EXCEPTION 'ledger: an account is born empty' USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  RETURN NULL;
END $$
""",
    """
CREATE FUNCTION ledger_account_closes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF OLD.closed_ms IS NOT NULL OR NEW.closed_ms IS NULL THEN
    RAISE EXCEPTION 'ledger: an account closes once' USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  RETURN NEW;
END $$
""",
    """
CREATE FUNCTION ledger_apply() RETURNS trigger LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
  first_seq bigint; last_seq bigint; rows bigint; before_seq bigint;
  touched bigint; moved bigint; assets_off bigint;
BEGIN
  SELECT min(seq), max(seq), count(*) INTO first_seq, last_seq, rows FROM fresh;
  IF rows = 0 THEN RETURN NULL; END IF;
  SELECT coalesce(max(seq), 0) INTO before_seq FROM ledger_transfer WHERE seq < first_seq;
  IF first_seq <> before_seq + 1 OR last_seq - first_seq + 1 <> rows THEN
    RAISE EXCEPTION 'ledger: transfers are numbered without gaps'
      USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  WITH leg AS (
    SELECT debit AS account, debit_seq AS n, -amount AS delta, debit_balance AS balance, window_no FROM fresh
    UNION ALL
    SELECT credit, credit_seq, amount - fee, credit_balance, NULL FROM fresh
    UNION ALL
    SELECT fee_account, fee_seq, fee, fee_balance, NULL FROM fresh WHERE fee_account IS NOT NULL
  ), step AS (
    SELECT account, n, delta, balance, window_no,
           lag(n) OVER by_account AS n_before, lag(balance) OVER by_account AS balance_before
      FROM leg WINDOW by_account AS (PARTITION BY account ORDER BY n)
  ), chain AS (
    SELECT account, min(n) AS n_first, max(n) AS n_last, min(balance) AS lowest, sum(delta)::bigint AS total,
           min(window_no) AS window_first, max(window_no) AS window_last,
           max(CASE WHEN n_before IS NULL THEN balance - delta END) AS balance_first,
           bool_and(n_before IS NULL OR (n = n_before + 1 AND balance = balance_before + delta)) AS whole
      FROM step GROUP BY account
  ), applied AS (
    UPDATE ledger_account AS a
       SET balance_micro = c.balance_first + c.total, seq = c.n_last,
           window_no = coalesce(c.window_last, a.window_no)
      FROM chain AS c
     WHERE a.id = c.account AND c.whole AND a.seq = c.n_first - 1 AND a.balance_micro = c.balance_first
       AND a.closed_ms IS NULL AND (a.floor_micro IS NULL OR c.lowest >= a.floor_micro)
       AND (c.window_first IS NULL OR c.window_first > a.window_no)
    RETURNING a.asset, c.total
  ), per_asset AS (SELECT asset, count(*) AS n, sum(total) AS total FROM applied GROUP BY asset)
  SELECT (SELECT count(*) FROM chain), coalesce(sum(n), 0), count(*) FILTER (WHERE total <> 0)
    INTO touched, moved, assets_off FROM per_asset;
  IF moved <> touched THEN
    RAISE EXCEPTION 'ledger: % of % accounts are not continued by these transfers', touched - moved, touched
      USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  IF assets_off > 0 THEN
    RAISE EXCEPTION 'ledger: legs of an asset do not sum to zero'
      USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  RETURN NULL;
END $$
""",
    """
CREATE FUNCTION ledger_load(codes text, ids text) RETURNS TABLE (
  what integer, transfer_id uuid, id bigint, code text, kind smallint, asset text, floor_micro bigint,
  balance_micro bigint, seq bigint, window_no bigint, payer bigint, closed_ms bigint
) LANGUAGE plpgsql VOLATILE SET enable_seqscan = off AS $$
#variable_conflict use_column
BEGIN
  PERFORM pg_advisory_xact_lock(8463215251501162604);
  RETURN QUERY SELECT 0, NULL::uuid, (SELECT coalesce(max(id), 0) FROM ledger_account), NULL::text,
    NULL::smallint, NULL::text, NULL::bigint,
    (SELECT posted_ms FROM ledger_transfer ORDER BY seq DESC LIMIT 1),
    (SELECT coalesce(max(seq), 0) FROM ledger_transfer), NULL::bigint, NULL::bigint, NULL::bigint;
  RETURN QUERY SELECT 1, NULL::uuid, id, code, kind, asset, floor_micro, balance_micro, seq, window_no, payer,
    closed_ms FROM ledger_account WHERE code = ANY (string_to_array(codes, ','));
  RETURN QUERY SELECT 2, id, NULL::bigint, NULL::text, NULL::smallint, NULL::text, NULL::bigint, NULL::bigint,
    NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint
    FROM ledger_transfer WHERE id = ANY (string_to_array(ids, ',')::uuid[]);
  RETURN QUERY SELECT 3, id, NULL::bigint, NULL::text, NULL::smallint, NULL::text, NULL::bigint, NULL::bigint,
    NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint
    FROM ledger_refusal WHERE id = ANY (string_to_array(ids, ',')::uuid[]);
END $$
""",
    """
CREATE TRIGGER ledger_transfer_append_only
  BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_transfer
  FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse()
""",
    """
CREATE TRIGGER ledger_refusal_append_only
  BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_refusal
  FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse()
""",
    """
CREATE TRIGGER ledger_seal_append_only
  BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_seal
  FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse()
""",
    """
CREATE TRIGGER ledger_transfer_apply AFTER INSERT ON ledger_transfer
  REFERENCING NEW TABLE AS fresh
  FOR EACH STATEMENT EXECUTE FUNCTION ledger_apply()
""",
    """
CREATE TRIGGER ledger_account_no_delete
  BEFORE DELETE OR TRUNCATE ON ledger_account
  FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse()
""",
    """
CREATE TRIGGER ledger_account_fixed
  BEFORE UPDATE OF id, code, kind, asset, floor_micro, payer, opened_ms ON ledger_account
  FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse()
""",
    """
CREATE TRIGGER ledger_account_moves
  BEFORE UPDATE OF balance_micro, seq, window_no ON ledger_account
  FOR EACH STATEMENT
  WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION ledger_refuse()
""",
    """
CREATE TRIGGER ledger_account_born AFTER INSERT ON ledger_account
  REFERENCING NEW TABLE AS born
  FOR EACH STATEMENT EXECUTE FUNCTION ledger_account_born()
""",
    """
CREATE TRIGGER ledger_account_closes
  BEFORE UPDATE OF closed_ms ON ledger_account FOR EACH ROW EXECUTE FUNCTION ledger_account_closes()
""",
]
