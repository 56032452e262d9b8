"""Why a transfer is refused: pure checks, in the order in which `Status` lists them."""

from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

from ledger.chart import KIND_BY_NUMBER, AccountKind
from ledger.entries import (
    REASON_LENGTH_MAX,
    REF_LENGTH_MAX,
    TRANSFERS,
    FeeRule,
    KindOfTransfer,
    Status,
    Transfer,
    TransferKind,
)
from ledger.money import BALANCE_MICRO_MAX, TRANSFER_MICRO_MAX

WINDOW_NO_MAX = 2**53 - 1
# The year 9999: what calendars, and so exports, can still write.
TIME_MS_MAX = 253_402_300_799_999


# Members of an enum are looked up once: through their class, each costs a capture a tenth of a microsecond.
_CAPTURE, _REFUND = TransferKind.CAPTURE, TransferKind.REFUND
_FEE, _HOLD, _WALLET = AccountKind.FEE, AccountKind.HOLD, AccountKind.WALLET
_CHARGED, _RETURNED = FeeRule.CHARGED, FeeRule.RETURNED

# id, code, kind, asset, floor_micro, balance_micro, seq, window_no, payer, closed_ms: as a database tells it.
AccountRow = tuple[int, str, int, str, int | None, int, int, int, int | None, int | None]


@dataclass(slots=True)
class Account:
    """An account as a batch sees it while it is being decided."""

    id: int
    code: str
    kind: AccountKind
    owner: str
    asset: str
    floor_micro: int | None
    balance_micro: int = 0
    seq: int = 0
    # The highest window captured from a hold.
    window_no: int = 0
    # The wallet that filled a hold: what is left goes back there and nowhere else.
    payer: int | None = None
    closed: bool = False

    @classmethod
    def read(cls, row: AccountRow) -> "Account":
        number, code, kind, asset, floor_micro, balance_micro, seq, window_no, payer, closed_ms = row
        # By position, which is quicker than by name: there is one for every hold.
        return cls(
            number, code, KIND_BY_NUMBER[kind], code.partition(":")[2].partition("@")[0], asset, floor_micro,
            balance_micro, seq, window_no, payer, closed_ms is not None,
        )  # fmt: skip

    def copy(self) -> "Account":
        # Spelt out: the standard library's copy takes five times as long.
        return Account(
            self.id, self.code, self.kind, self.owner, self.asset, self.floor_micro, self.balance_micro,
            self.seq, self.window_no, self.payer, self.closed,
        )  # fmt: skip


@dataclass(kw_only=True, slots=True)
class Original:
    """A transfer that others correct, and how much of it has been corrected already."""

    seq: int
    kind: TransferKind
    parties: frozenset[int]
    payer: int | None
    debit: int
    credit: int
    amount_micro: int
    fee_micro: int
    corrected_gross_micro: int = 0
    refunded_micro: int = 0
    refunded_fee_micro: int = 0

    @property
    def gross_micro(self) -> int:
        return self.amount_micro if self.fee_micro >= 0 else self.amount_micro - self.fee_micro


class Parties(NamedTuple):
    """The accounts of one transfer."""

    debit: Account
    credit: Account
    fee: Account | None


def refuse_words(transfer: Transfer) -> Status | None:
    """What can be told from the transfer alone."""
    rule = TRANSFERS[transfer.kind]
    amount, fee = transfer.amount_micro, transfer.fee_micro
    if type(amount) is not int or type(fee) is not int:
        raise TypeError("money is whole micro-credits: an amount and a fee are ints")
    if not 0 < amount <= TRANSFER_MICRO_MAX:
        return Status.AMOUNT_OUT_OF_RANGE
    if (fee != 0 or transfer.fee_account is not None) and not _fee_fits(transfer, rule.fee):
        return Status.FEE_OUT_OF_RANGE
    window = transfer.window_no
    if window is not None and (transfer.kind is not _CAPTURE or not 0 < window <= WINDOW_NO_MAX):
        return Status.WINDOW_OUT_OF_RANGE
    if not 0 <= transfer.event_ms <= TIME_MS_MAX:
        return Status.TIME_OUT_OF_RANGE
    if not _text_fits(transfer.ref, REF_LENGTH_MAX) or not _text_fits(transfer.reason, REASON_LENGTH_MAX):
        return Status.TEXT_UNFIT
    if rule.corrects or transfer.corrects is not None:
        refusal = _refuse_naming(transfer, rule)
        if refusal is not None:
            return refusal
    if transfer.debit == transfer.credit:
        return Status.ACCOUNTS_NOT_DISTINCT
    return None


def _text_fits(text: str, length_max: int) -> bool:
    """One line of what can be printed: it goes to exports that are made of lines."""
    return not text or (len(text) <= length_max and text.isprintable())


def _fee_fits(transfer: Transfer, rule: FeeRule) -> bool:
    fee = transfer.fee_micro
    if (transfer.fee_account is None) != (fee == 0):
        return False
    if rule is _CHARGED:
        return 0 < fee <= transfer.amount_micro
    # What the wallet gains in all is a transfer's amount too, and has the same limit.
    return rule is _RETURNED and fee < 0 and transfer.gross_micro <= TRANSFER_MICRO_MAX


def _refuse_naming(transfer: Transfer, rule: KindOfTransfer) -> Status | None:
    if transfer.corrects is None:
        return Status.CORRECTED_NOT_NAMED
    if not rule.corrects:
        return Status.CORRECTED_NOT_EXPECTED
    if not transfer.reason.strip():
        return Status.REASON_MISSING
    return None


def refuse_accounts(transfer: Transfer, parties: Parties) -> Status | None:
    """What can be told from the accounts it names."""
    rule = TRANSFERS[transfer.kind]
    debit, credit, fee = parties.debit, parties.credit, parties.fee
    if debit.kind not in rule.debit or credit.kind not in rule.credit:
        return Status.ACCOUNT_KIND_WRONG
    if fee is not None and fee.kind is not _FEE:
        return Status.ACCOUNT_KIND_WRONG
    if debit.asset != credit.asset or (fee is not None and fee.asset != credit.asset):
        return Status.ASSETS_DIFFER
    if debit.closed or credit.closed or (fee is not None and fee.closed):
        return Status.ACCOUNT_CLOSED
    if debit.kind is _HOLD:
        return _refuse_hold(transfer, debit, credit)
    if credit.kind is _HOLD:
        return _refuse_hold(transfer, credit, debit)
    return None


def _refuse_hold(transfer: Transfer, hold: Account, other: Account) -> Status | None:
    """A hold is of one job, filled by one wallet, and what is left goes back there."""
    if transfer.ref != hold.owner:
        return Status.REF_DIFFERS
    if other.kind is _WALLET and other.id != hold.payer:
        return Status.PAYER_DIFFERS
    return None


def refuse_correction(transfer: Transfer, parties: Parties, original: Original | None) -> Status | None:
    """What can be told from the transfer that it corrects."""
    if original is None:
        return Status.CORRECTED_NOT_FOUND
    if not _corrects(transfer.kind, parties, original):
        return Status.CORRECTED_DIFFERS
    if original.corrected_gross_micro + transfer.gross_micro > original.gross_micro:
        return Status.CORRECTION_TOO_LARGE
    if transfer.kind is _REFUND:
        earned = original.amount_micro - original.fee_micro
        if original.refunded_micro + transfer.amount_micro > earned:
            return Status.CORRECTION_TOO_LARGE
        if original.refunded_fee_micro - transfer.fee_micro > original.fee_micro:
            return Status.CORRECTION_TOO_LARGE
    return None


def _corrects(kind: TransferKind, parties: Parties, original: Original) -> bool:
    if kind is _REFUND:
        return (
            original.kind is _CAPTURE
            and parties.debit.id == original.credit
            and parties.credit.id == original.payer
        )
    touched = original.parties if original.payer is None else original.parties | {original.payer}
    return parties.debit.id in touched or parties.credit.id in touched


def refuse_balances(transfer: Transfer, parties: Parties) -> Status | None:
    """What can be told from the balances it would leave."""
    debit, credit, fee = parties.debit, parties.credit, parties.fee
    amount, fee_micro = transfer.amount_micro, transfer.fee_micro
    if transfer.window_no is not None and transfer.window_no <= debit.window_no:
        return Status.WINDOW_PASSED
    debit_after = debit.balance_micro - amount
    if debit.floor_micro is not None and debit_after < debit.floor_micro:
        return Status.INSUFFICIENT_FUNDS
    credit_after = credit.balance_micro + amount - fee_micro
    if debit_after < -BALANCE_MICRO_MAX or credit_after > BALANCE_MICRO_MAX:
        return Status.BALANCE_OUT_OF_RANGE
    if fee is not None:
        fee_after = fee.balance_micro + fee_micro
        if fee.floor_micro is not None and fee_after < fee.floor_micro:
            return Status.INSUFFICIENT_FUNDS
        if fee_after > BALANCE_MICRO_MAX:
            return Status.BALANCE_OUT_OF_RANGE
    return None


@dataclass(frozen=True, kw_only=True, slots=True)
class Refused:
    """A refusal as it is kept: which transfer, why, and a digest of what was asked."""

    id: UUID
    status: Status
    digest: bytes
    after_seq: int
