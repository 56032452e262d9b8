"""The ledger's quicker triggers as revision 0003 makes them on SQLite; frozen, whatever ledger.triggers says later."""

# ruff: noqa: E501 - as compiled

STATEMENTS = [
    "DROP TRIGGER ledger_transfer_next",
    """
CREATE TRIGGER ledger_transfer_next BEFORE INSERT ON ledger_transfer
WHEN NEW.seq IS NOT coalesce((SELECT seq FROM ledger_transfer ORDER BY seq DESC LIMIT 1), 0) + 1
  OR EXISTS (SELECT 1 FROM ledger_transfer WHERE id = NEW.id)
BEGIN SELECT RAISE(ABORT, 'ledger: transfers are numbered without gaps, and an id names one'); END""",
    "DROP TRIGGER ledger_transfer_apply",
    """
CREATE TRIGGER ledger_transfer_apply AFTER INSERT ON ledger_transfer
BEGIN
  UPDATE ledger_account SET balance_micro = NEW.debit_balance, seq = NEW.debit_seq, window_no = coalesce(NEW.window_no, window_no)
   WHERE id = NEW.debit AND seq = NEW.debit_seq - 1 AND balance_micro = NEW.debit_balance - (-NEW.amount)
     AND closed_ms IS NULL AND (NEW.window_no IS NULL OR NEW.window_no > window_no);
  SELECT RAISE(ABORT, 'ledger: the debit leg does not continue an account of its asset')
   WHERE changes() <> 1;

  UPDATE ledger_account SET balance_micro = NEW.credit_balance, seq = NEW.credit_seq
   WHERE id = NEW.credit AND seq = NEW.credit_seq - 1 AND balance_micro = NEW.credit_balance - (NEW.amount - NEW.fee)
     AND closed_ms IS NULL AND asset = (SELECT asset FROM ledger_account WHERE id = NEW.debit);
  SELECT RAISE(ABORT, 'ledger: the credit leg does not continue an account of its asset')
   WHERE changes() <> 1;
END""",
    "DROP TRIGGER ledger_transfer_apply_fee",
    """
CREATE TRIGGER ledger_transfer_apply_fee AFTER INSERT ON ledger_transfer WHEN NEW.fee_account IS NOT NULL
BEGIN
  UPDATE ledger_account SET balance_micro = NEW.fee_balance, seq = NEW.fee_seq
   WHERE id = NEW.fee_account AND seq = NEW.fee_seq - 1 AND balance_micro = NEW.fee_balance - (NEW.fee)
     AND closed_ms IS NULL AND asset = (SELECT asset FROM ledger_account WHERE id = NEW.debit);
  SELECT RAISE(ABORT, 'ledger: the fee leg does not continue an account of its asset')
   WHERE changes() <> 1;
END""",
    "DROP TRIGGER ledger_account_moves",
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
]
