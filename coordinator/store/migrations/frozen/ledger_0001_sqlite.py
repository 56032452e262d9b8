"""The ledger as revision 0001 makes it on SQLite; frozen, whatever ledger.tables says later."""

# ruff: noqa: E501 - as compiled

STATEMENTS = [
    """
CREATE TABLE ledger_account (
    id INTEGER NOT NULL,
    code TEXT NOT NULL,
    kind INTEGER NOT NULL,
    asset TEXT NOT NULL,
    floor_micro INTEGER,
    balance_micro INTEGER DEFAULT 0 NOT NULL,
    seq INTEGER DEFAULT 0 NOT NULL,
    window_no INTEGER DEFAULT 0 NOT NULL,
    payer INTEGER,
    opened_ms INTEGER NOT NULL,
    closed_ms INTEGER,
    PRIMARY KEY (id),
    CONSTRAINT ledger_account_floor CHECK (floor_micro IS NULL OR balance_micro >= floor_micro),
    CONSTRAINT ledger_account_range CHECK (balance_micro BETWEEN -4611686018427387904 AND 4611686018427387904),
    CONSTRAINT ledger_account_closed CHECK (closed_ms IS NULL OR balance_micro = 0),
    CONSTRAINT ledger_account_kind CHECK (kind BETWEEN 1 AND 8),
    UNIQUE (code)
)
 STRICT
""",
    """
CREATE TABLE ledger_refusal (
    id BLOB NOT NULL,
    status TEXT NOT NULL,
    digest BLOB NOT NULL,
    after_seq INTEGER NOT NULL,
    refused_ms INTEGER NOT NULL,
    PRIMARY KEY (id)
)
 STRICT
""",
    """
CREATE INDEX ledger_refusal_after ON ledger_refusal (after_seq)
""",
    """
CREATE TABLE ledger_seal (
    no INTEGER NOT NULL,
    first_seq INTEGER NOT NULL,
    last_seq INTEGER NOT NULL,
    last_account INTEGER NOT NULL,
    hash BLOB NOT NULL,
    sealed_ms INTEGER NOT NULL,
    PRIMARY KEY (no),
    CONSTRAINT ledger_seal_range CHECK (first_seq >= 1 AND last_seq >= first_seq)
)
 STRICT
""",
    """
CREATE TABLE ledger_transfer (
    seq INTEGER NOT NULL,
    id BLOB NOT NULL,
    kind INTEGER NOT NULL,
    debit INTEGER NOT NULL,
    debit_seq INTEGER NOT NULL,
    debit_balance INTEGER NOT NULL,
    credit INTEGER NOT NULL,
    credit_seq INTEGER NOT NULL,
    credit_balance INTEGER NOT NULL,
    amount INTEGER NOT NULL,
    fee INTEGER NOT NULL,
    event_ms INTEGER NOT NULL,
    posted_ms INTEGER NOT NULL,
    fee_account INTEGER,
    fee_seq INTEGER,
    fee_balance INTEGER,
    window_no INTEGER,
    corrects INTEGER,
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
 STRICT
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
CREATE TRIGGER ledger_transfer_no_update
  BEFORE UPDATE ON ledger_transfer
  BEGIN SELECT RAISE(ABORT, 'ledger: ledger_transfer is append-only'); END
""",
    """
CREATE TRIGGER ledger_transfer_no_delete
  BEFORE DELETE ON ledger_transfer
  BEGIN SELECT RAISE(ABORT, 'ledger: ledger_transfer is append-only'); END
""",
    """
CREATE TRIGGER ledger_refusal_no_update
  BEFORE UPDATE ON ledger_refusal
  BEGIN SELECT RAISE(ABORT, 'ledger: ledger_refusal is append-only'); END
""",
    """
CREATE TRIGGER ledger_refusal_no_delete
  BEFORE DELETE ON ledger_refusal
  BEGIN SELECT RAISE(ABORT, 'ledger: ledger_refusal is append-only'); END
""",
    """
CREATE TRIGGER ledger_seal_no_update
  BEFORE UPDATE ON ledger_seal
  BEGIN SELECT RAISE(ABORT, 'ledger: ledger_seal is append-only'); END
""",
    """
CREATE TRIGGER ledger_seal_no_delete
  BEFORE DELETE ON ledger_seal
  BEGIN SELECT RAISE(ABORT, 'ledger: ledger_seal is append-only'); END
""",
    """
CREATE TRIGGER ledger_refusal_no_replace BEFORE INSERT ON ledger_refusal
WHEN EXISTS (SELECT 1 FROM ledger_refusal WHERE id = NEW.id)
BEGIN SELECT RAISE(ABORT, 'ledger: ledger_refusal has this id already'); END
""",
    """
CREATE TRIGGER ledger_seal_no_replace BEFORE INSERT ON ledger_seal
WHEN EXISTS (SELECT 1 FROM ledger_seal WHERE no = NEW.no)
BEGIN SELECT RAISE(ABORT, 'ledger: ledger_seal has this no already'); END
""",
    """
CREATE TRIGGER ledger_transfer_next BEFORE INSERT ON ledger_transfer
WHEN NEW.seq IS NOT (SELECT coalesce(max(seq), 0) + 1 FROM ledger_transfer)
  OR EXISTS (SELECT 1 FROM ledger_transfer WHERE id = NEW.id)
BEGIN SELECT RAISE(ABORT, 'ledger: transfers are numbered without gaps, and an id names one'); END
""",
    """
CREATE TRIGGER ledger_transfer_apply AFTER INSERT ON ledger_transfer
BEGIN
  UPDATE ledger_account SET balance_micro = NEW.debit_balance, seq = NEW.debit_seq, window_no = coalesce(NEW.window_no, window_no)
   WHERE id = NEW.debit AND seq = NEW.debit_seq - 1 AND balance_micro = NEW.debit_balance - (-NEW.amount)
     AND closed_ms IS NULL AND (NEW.window_no IS NULL OR NEW.window_no > window_no);
  SELECT RAISE(ABORT, 'ledger: the debit leg does not continue its account') WHERE changes() <> 1;

  UPDATE ledger_account SET balance_micro = NEW.credit_balance, seq = NEW.credit_seq
   WHERE id = NEW.credit AND seq = NEW.credit_seq - 1 AND balance_micro = NEW.credit_balance - (NEW.amount - NEW.fee)
     AND closed_ms IS NULL;
  SELECT RAISE(ABORT, 'ledger: the credit leg does not continue its account') WHERE changes() <> 1;
  SELECT RAISE(ABORT, 'ledger: assets differ')
   WHERE (SELECT asset FROM ledger_account WHERE id = NEW.debit)
      <> (SELECT asset FROM ledger_account WHERE id = NEW.credit);
END
""",
    """
CREATE TRIGGER ledger_transfer_apply_fee AFTER INSERT ON ledger_transfer WHEN NEW.fee_account IS NOT NULL
BEGIN
  UPDATE ledger_account SET balance_micro = NEW.fee_balance, seq = NEW.fee_seq
   WHERE id = NEW.fee_account AND seq = NEW.fee_seq - 1 AND balance_micro = NEW.fee_balance - (NEW.fee)
     AND closed_ms IS NULL;
  SELECT RAISE(ABORT, 'ledger: the fee leg does not continue its account') WHERE changes() <> 1;
  SELECT RAISE(ABORT, 'ledger: assets differ')
   WHERE (SELECT asset FROM ledger_account WHERE id = NEW.fee_account)
      <> (SELECT asset FROM ledger_account WHERE id = NEW.credit);
END
""",
    """
CREATE TRIGGER ledger_account_born BEFORE INSERT ON ledger_account
WHEN NEW.balance_micro <> 0 OR NEW.seq <> 0 OR NEW.window_no <> 0 OR NEW.closed_ms IS NOT NULL
  OR EXISTS (SELECT 1 FROM ledger_account WHERE id = NEW.id OR code = NEW.code)
BEGIN SELECT RAISE(ABORT, 'ledger: an account is born once, and empty'); END
""",
    """
CREATE TRIGGER ledger_account_moves BEFORE UPDATE OF balance_micro, seq, window_no ON ledger_account
WHEN NEW.seq <> OLD.seq + 1 OR NOT EXISTS (
  SELECT 1 FROM ledger_transfer WHERE seq = (SELECT max(seq) FROM ledger_transfer) AND (
       (debit = NEW.id AND debit_seq = NEW.seq AND debit_balance = NEW.balance_micro
         AND NEW.window_no = coalesce(window_no, OLD.window_no))
    OR (credit = NEW.id AND credit_seq = NEW.seq AND credit_balance = NEW.balance_micro
         AND NEW.window_no = OLD.window_no)
    OR (fee_account = NEW.id AND fee_seq = NEW.seq AND fee_balance = NEW.balance_micro
         AND NEW.window_no = OLD.window_no)))
BEGIN SELECT RAISE(ABORT, 'ledger: a balance moves only by a transfer'); END
""",
    """
CREATE TRIGGER ledger_account_fixed
BEFORE UPDATE OF id, code, kind, asset, floor_micro, payer, opened_ms ON ledger_account
BEGIN SELECT RAISE(ABORT, 'ledger: what an account is never changes'); END
""",
    """
CREATE TRIGGER ledger_account_closes BEFORE UPDATE OF closed_ms ON ledger_account
WHEN OLD.closed_ms IS NOT NULL OR NEW.closed_ms IS NULL
BEGIN SELECT RAISE(ABORT, 'ledger: an account closes once'); END
""",
    """
CREATE TRIGGER ledger_account_no_delete BEFORE DELETE ON ledger_account
BEGIN SELECT RAISE(ABORT, 'ledger: an account is never deleted'); END
""",
]
