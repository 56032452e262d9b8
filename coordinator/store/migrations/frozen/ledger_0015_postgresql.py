"""The guards of the ledger as revision 0015 makes them on PostgreSQL; frozen, whatever ledger.triggers says later."""

# ruff: noqa: E501 - as compiled

STATEMENTS = [
    # PostgreSQL keeps a column as it is while a trigger names it.
    "DROP TRIGGER ledger_account_fixed ON ledger_account",
    'ALTER TABLE ledger_account ALTER COLUMN code TYPE text COLLATE "C"',
    """
CREATE TRIGGER ledger_account_fixed BEFORE UPDATE OF id, code, kind, asset, floor_micro, payer, opened_ms ON ledger_account FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse()""",
    "DROP TRIGGER ledger_account_closes ON ledger_account",
    "DROP FUNCTION ledger_account_closes()",
    """
CREATE TRIGGER ledger_account_closes AFTER UPDATE OF closed_ms ON ledger_account FOR EACH ROW WHEN (OLD.closed_ms IS NOT NULL OR NEW.closed_ms IS NULL) EXECUTE FUNCTION ledger_refuse()""",
    """
CREATE OR REPLACE FUNCTION ledger_apply() RETURNS trigger LANGUAGE plpgsql
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
END $$""",
    """
CREATE OR REPLACE FUNCTION ledger_load(codes text, ids text) RETURNS TABLE (
  what integer, transfer_id uuid, id bigint, code text, kind smallint, asset text, floor_micro bigint,
  balance_micro bigint, seq bigint, window_no bigint, payer bigint, closed_ms bigint
) LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
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
    FROM unnest(string_to_array(ids, ',')::uuid[]) AS asked JOIN ledger_transfer ON id = asked;
  RETURN QUERY SELECT 3, id, NULL::bigint, NULL::text, NULL::smallint, NULL::text, NULL::bigint, NULL::bigint,
    NULL::bigint, NULL::bigint, NULL::bigint, NULL::bigint
    FROM unnest(string_to_array(ids, ',')::uuid[]) AS asked JOIN ledger_refusal ON id = asked;
END $$""",
]
