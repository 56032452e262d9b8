"""What the database itself refuses, whoever writes to it and however.

- A transfer, a refusal and a seal are written once and never changed or deleted.
- A balance moves only by inserting a transfer: the trigger moves it, and only if the transfer's running
  balances continue what the accounts hold, keep every floor at every step, and sum to zero per asset.
- An account is born empty, never deleted, and closed at most once.
"""

# ruff: noqa: S608 - every word of these statements is written below

VIEW = """
CREATE VIEW ledger_leg AS
SELECT seq, debit AS account, 'debit' AS side, debit_seq AS account_seq, -amount AS delta,
       debit_balance AS balance
  FROM ledger_transfer
UNION ALL
SELECT seq, credit, 'credit', credit_seq, amount - fee, credit_balance FROM ledger_transfer
UNION ALL
SELECT seq, fee_account, 'fee', fee_seq, fee, fee_balance FROM ledger_transfer WHERE fee_account IS NOT NULL
"""

# The advisory lock that is the ledger's head on PostgreSQL. Any number will do that nothing else uses.
HEAD_LOCK = 0x7573616E6365206C
SEAL_LOCK = 0x7573616E63652073

_APPEND_ONLY = ("ledger_transfer", "ledger_refusal", "ledger_seal")


def _sqlite_append_only(table: str) -> list[str]:
    return [
        f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table}"
        f" BEGIN SELECT RAISE(ABORT, 'ledger: {table} is append-only'); END"
        for verb in ("UPDATE", "DELETE")
    ]


def _sqlite_no_replace(table: str, key: str) -> str:
    # INSERT OR REPLACE deletes what it replaces without firing the DELETE trigger: refuse it at the insert.
    return f"""
CREATE TRIGGER {table}_no_replace BEFORE INSERT ON {table}
WHEN EXISTS (SELECT 1 FROM {table} WHERE {key} = NEW.{key})
BEGIN SELECT RAISE(ABORT, 'ledger: {table} has this {key} already'); END"""


def _sqlite_leg(role: str, delta: str) -> str:
    account = "fee_account" if role == "fee" else role
    moves, guard = "", " AND asset = (SELECT asset FROM ledger_account WHERE id = NEW.debit)"
    if role == "debit":
        moves = ", window_no = coalesce(NEW.window_no, window_no)"
        guard = " AND (NEW.window_no IS NULL OR NEW.window_no > window_no)"
    return f"""
  UPDATE ledger_account SET balance_micro = NEW.{role}_balance, seq = NEW.{role}_seq{moves}
   WHERE id = NEW.{account} AND seq = NEW.{role}_seq - 1 AND balance_micro = NEW.{role}_balance - ({delta})
     AND closed_ms IS NULL{guard};
  SELECT RAISE(ABORT, 'ledger: the {role} leg does not continue an account of its asset')
   WHERE changes() <> 1;"""


# Triggers run for every row, so they are few: each costs a capture a microsecond or so.
SQLITE = [
    *(statement for table in _APPEND_ONLY for statement in _sqlite_append_only(table)),
    _sqlite_no_replace("ledger_refusal", "id"),
    _sqlite_no_replace("ledger_seal", "no"),
    """
CREATE TRIGGER ledger_transfer_next BEFORE INSERT ON ledger_transfer
WHEN NEW.seq IS NOT coalesce((SELECT seq FROM ledger_transfer ORDER BY seq DESC LIMIT 1), 0) + 1
  OR EXISTS (SELECT 1 FROM ledger_transfer WHERE id = NEW.id)
BEGIN SELECT RAISE(ABORT, 'ledger: transfers are numbered without gaps, and an id names one'); END""",
    f"""
CREATE TRIGGER ledger_transfer_apply AFTER INSERT ON ledger_transfer
BEGIN{_sqlite_leg("debit", "-NEW.amount")}
{_sqlite_leg("credit", "NEW.amount - NEW.fee")}
END""",
    f"""
CREATE TRIGGER ledger_transfer_apply_fee AFTER INSERT ON ledger_transfer WHEN NEW.fee_account IS NOT NULL
BEGIN{_sqlite_leg("fee", "NEW.fee")}
END""",
    """
CREATE TRIGGER ledger_account_born BEFORE INSERT ON ledger_account
WHEN NEW.balance_micro <> 0 OR NEW.seq <> 0 OR NEW.window_no <> 0 OR NEW.closed_ms IS NOT NULL
  OR EXISTS (SELECT 1 FROM ledger_account WHERE id = NEW.id OR code = NEW.code)
BEGIN SELECT RAISE(ABORT, 'ledger: an account is born once, and empty'); END""",
    # The last transfer must say so. The row is looked up once, and only the leg of this account is compared.
    """
CREATE TRIGGER ledger_account_moves BEFORE UPDATE OF balance_micro, seq, window_no ON ledger_account
WHEN NEW.seq <> OLD.seq + 1 OR NOT coalesce((
  SELECT CASE NEW.id
    WHEN debit THEN debit_seq = NEW.seq AND debit_balance = NEW.balance_micro
                AND NEW.window_no = coalesce(window_no, OLD.window_no)
    WHEN credit THEN credit_seq = NEW.seq AND credit_balance = NEW.balance_micro
                 AND NEW.window_no = OLD.window_no
    WHEN fee_account THEN fee_seq = NEW.seq AND fee_balance = NEW.balance_micro
                      AND NEW.window_no = OLD.window_no
  END FROM ledger_transfer ORDER BY seq DESC LIMIT 1), 0)
BEGIN SELECT RAISE(ABORT, 'ledger: a balance moves only by a transfer'); END""",
    """
CREATE TRIGGER ledger_account_fixed
BEFORE UPDATE OF id, code, kind, asset, floor_micro, payer, opened_ms ON ledger_account
BEGIN SELECT RAISE(ABORT, 'ledger: what an account is never changes'); END""",
    """
CREATE TRIGGER ledger_account_closes BEFORE UPDATE OF closed_ms ON ledger_account
WHEN OLD.closed_ms IS NOT NULL OR NEW.closed_ms IS NULL
BEGIN SELECT RAISE(ABORT, 'ledger: an account closes once'); END""",
    """
CREATE TRIGGER ledger_account_no_delete BEFORE DELETE ON ledger_account
BEGIN SELECT RAISE(ABORT, 'ledger: an account is never deleted'); END""",
]

_POSTGRES_REFUSE = """
CREATE FUNCTION ledger_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'ledger: % of % is refused', TG_OP, TG_TABLE_NAME
    USING ERRCODE = 'integrity_constraint_violation';
END $$"""

_POSTGRES_BORN = """
CREATE FUNCTION ledger_account_born() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (
    SELECT FROM born WHERE balance_micro <> 0 OR seq <> 0 OR window_no <> 0 OR closed_ms IS NOT NULL
  ) THEN
    RAISE EXCEPTION 'ledger: an account is born empty' USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  RETURN NULL;
END $$"""

# What a batch has to know, in one round trip: the tail (0), its accounts (1), and which of its ids were
# posted (2) or refused (3) before. Each statement of a volatile function sees what was committed before it
# began, so all that follows the lock sees what the last holder of the head left. The planner is told to use
# the keys: a plan that was made while the tables were small is kept, and must not scan them when they are
# large. Ids are looked up one by one: most are new, and a scan for all of them at once costs twice as much.
_POSTGRES_LOAD = """
CREATE FUNCTION ledger_load(codes text, ids text) RETURNS TABLE (
  what integer, transfer_id uuid, id bigint, code text, kind smallint, asset text, floor_micro bigint,
  balance_micro bigint, seq bigint, window_no bigint, payer bigint, closed_ms bigint
) LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
#variable_conflict use_column
BEGIN
  PERFORM pg_advisory_xact_lock(@HEAD@);
  RETURN QUERY SELECT 0, NULL::uuid, (SELECT coalesce(max(id), 0) FROM ledger_account), NULL::text,
    NULL::smallint, NULL::text, NULL::bigint,
    (SELECT posted_ms FROM ledger_transfer ORDER BY seq DESC LIMIT 1),
    (SELECT coalesce(max(seq), 0) FROM ledger_transfer), NULL::bigint, NULL::bigint, NULL::bigint;
  RETURN QUERY SELECT 1, NULL::uuid, id, code, kind, asset, floor_micro, balance_micro, seq, window_no, payer,
    closed_ms FROM ledger_account WHERE code = ANY (string_to_array(codes, ','));
  RETURN QUERY SELECT 2, id, NULL::bigint, NULL::text, NULL::smallint, NULL::text, NULL::bigint, NULL::bigint,
    NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint
    FROM unnest(string_to_array(ids, ',')::uuid[]) AS asked JOIN ledger_transfer ON id = asked;
  RETURN QUERY SELECT 3, id, NULL::bigint, NULL::text, NULL::smallint, NULL::text, NULL::bigint, NULL::bigint,
    NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint
    FROM unnest(string_to_array(ids, ',')::uuid[]) AS asked JOIN ledger_refusal ON id = asked;
END $$""".replace("@HEAD@", str(HEAD_LOCK))

# The legs of an account, in order, are a chain if their numbers follow each other and each begins at the
# balance where the one before it ended; most accounts have one leg in a batch, and nothing to be compared.
# `sum` over all legs is zero for each transfer by its columns; per asset it is checked here.
_POSTGRES_APPLY = """
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
    SELECT debit AS account, debit_seq AS n, debit_balance + amount AS before, debit_balance AS after,
           window_no FROM fresh
    UNION ALL
    SELECT credit, credit_seq, credit_balance - (amount - fee), credit_balance, NULL FROM fresh
    UNION ALL
    SELECT fee_account, fee_seq, fee_balance - fee, fee_balance, NULL FROM fresh WHERE fee_account IS NOT NULL
  ), account AS (
    SELECT account, count(*)::integer AS legs, array_agg(n) AS n, array_agg(n + 1) AS n_next,
           array_agg(before) AS before, array_agg(after) AS after, min(after) AS lowest,
           min(window_no) AS window_first, max(window_no) AS window_last
      FROM (SELECT * FROM leg ORDER BY account, n) AS ordered GROUP BY account
  ), chain AS (
    SELECT account, n[1] AS n_first, n[legs] AS n_last, before[1] AS balance_first,
           after[legs] AS balance_last, lowest, window_first, window_last,
           CASE WHEN legs = 1 THEN true
                ELSE n[2:] = n_next[:legs - 1] AND before[2:] = after[:legs - 1] END AS whole
      FROM account
  ), applied AS (
    UPDATE ledger_account AS a
       SET balance_micro = c.balance_last, seq = c.n_last,
           window_no = coalesce(c.window_last, a.window_no)
      FROM chain AS c
     WHERE a.id = c.account AND c.whole AND a.seq = c.n_first - 1 AND a.balance_micro = c.balance_first
       AND a.closed_ms IS NULL AND (a.floor_micro IS NULL OR c.lowest >= a.floor_micro)
       AND (c.window_first IS NULL OR c.window_first > a.window_no)
    RETURNING a.asset, c.balance_last - c.balance_first AS total
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
END $$"""

POSTGRES = [
    _POSTGRES_REFUSE,
    _POSTGRES_BORN,
    _POSTGRES_APPLY,
    _POSTGRES_LOAD,
    *(
        f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table}"
        " FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse()"
        for table in _APPEND_ONLY
    ),
    "CREATE TRIGGER ledger_transfer_apply AFTER INSERT ON ledger_transfer REFERENCING NEW TABLE AS fresh"
    " FOR EACH STATEMENT EXECUTE FUNCTION ledger_apply()",
    "CREATE TRIGGER ledger_account_no_delete BEFORE DELETE OR TRUNCATE ON ledger_account"
    " FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse()",
    "CREATE TRIGGER ledger_account_fixed"
    " BEFORE UPDATE OF id, code, kind, asset, floor_micro, payer, opened_ms ON ledger_account"
    " FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse()",
    # At depth 0 it is a statement from outside; ledger_apply updates balances from within a trigger.
    "CREATE TRIGGER ledger_account_moves BEFORE UPDATE OF balance_micro, seq, window_no ON ledger_account"
    " FOR EACH STATEMENT WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION ledger_refuse()",
    "CREATE TRIGGER ledger_account_born AFTER INSERT ON ledger_account REFERENCING NEW TABLE AS born"
    " FOR EACH STATEMENT EXECUTE FUNCTION ledger_account_born()",
    # After: a trigger before it would lock each row once more whenever a balance moves.
    "CREATE TRIGGER ledger_account_closes AFTER UPDATE OF closed_ms ON ledger_account FOR EACH ROW"
    " WHEN (OLD.closed_ms IS NOT NULL OR NEW.closed_ms IS NULL) EXECUTE FUNCTION ledger_refuse()",
]
