"""What the ledger is asked, what it answers, and what it keeps."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple
from uuid import UUID

from ledger.chart import FEE, ISSUANCE, PAYOUTS, AccountKind
from ledger.chart import earnings as earnings_code
from ledger.chart import hold as hold_code
from ledger.chart import wallet as wallet_code

REF_LENGTH_MAX = 128
REASON_LENGTH_MAX = 500


class TransferKind(StrEnum):
    DEPOSIT = "deposit"
    WITHDRAW = "withdraw"
    HOLD = "hold"
    CAPTURE = "capture"
    RELEASE = "release"
    REFUND = "refund"
    ADJUSTMENT = "adjustment"


class FeeRule(StrEnum):
    NONE = "none"
    CHARGED = "charged"
    RETURNED = "returned"


@dataclass(frozen=True, kw_only=True)
class KindOfTransfer:
    """One line of the table of transfers: from which accounts to which, and what it must name."""

    number: int
    debit: frozenset[AccountKind]
    credit: frozenset[AccountKind]
    fee: FeeRule = FeeRule.NONE
    corrects: bool = False


def _kinds(*kinds: AccountKind) -> frozenset[AccountKind]:
    return frozenset(kinds)


_ANY_BUT_HOLD = frozenset(AccountKind) - {AccountKind.HOLD}

TRANSFERS: Mapping[TransferKind, KindOfTransfer] = MappingProxyType(
    {
        TransferKind.DEPOSIT: KindOfTransfer(
            number=1,
            debit=_kinds(AccountKind.ISSUANCE),
            credit=_kinds(AccountKind.WALLET, AccountKind.SUSPENSE),
        ),
        TransferKind.WITHDRAW: KindOfTransfer(
            number=2,
            debit=_kinds(AccountKind.EARNINGS, AccountKind.WALLET),
            credit=_kinds(AccountKind.PAYOUTS),
        ),
        TransferKind.HOLD: KindOfTransfer(
            number=3, debit=_kinds(AccountKind.WALLET), credit=_kinds(AccountKind.HOLD)
        ),
        TransferKind.CAPTURE: KindOfTransfer(
            number=4, debit=_kinds(AccountKind.HOLD), credit=_kinds(AccountKind.EARNINGS), fee=FeeRule.CHARGED
        ),
        TransferKind.RELEASE: KindOfTransfer(
            number=5, debit=_kinds(AccountKind.HOLD), credit=_kinds(AccountKind.WALLET)
        ),
        TransferKind.REFUND: KindOfTransfer(
            number=6,
            debit=_kinds(AccountKind.EARNINGS),
            credit=_kinds(AccountKind.WALLET),
            fee=FeeRule.RETURNED,
            corrects=True,
        ),
        TransferKind.ADJUSTMENT: KindOfTransfer(
            number=7, debit=_ANY_BUT_HOLD, credit=_ANY_BUT_HOLD, corrects=True
        ),
    }
)
TRANSFER_BY_NUMBER = {line.number: kind for kind, line in TRANSFERS.items()}


class Status(StrEnum):
    """The answer to one transfer. Refusals stand in the order in which they are looked for."""

    POSTED = "posted"
    EXISTS = "exists"
    EXISTS_WITH_DIFFERENT_CONTENT = "exists_with_different_content"
    LINKED_CHAIN_OPEN = "linked_chain_open"
    AMOUNT_OUT_OF_RANGE = "amount_out_of_range"
    FEE_OUT_OF_RANGE = "fee_out_of_range"
    WINDOW_OUT_OF_RANGE = "window_out_of_range"
    TIME_OUT_OF_RANGE = "time_out_of_range"
    TEXT_UNFIT = "text_unfit"
    CORRECTED_NOT_NAMED = "corrected_not_named"
    CORRECTED_NOT_EXPECTED = "corrected_not_expected"
    REASON_MISSING = "reason_missing"
    ACCOUNTS_NOT_DISTINCT = "accounts_not_distinct"
    ACCOUNT_NOT_FOUND = "account_not_found"
    ACCOUNT_KIND_WRONG = "account_kind_wrong"
    ASSETS_DIFFER = "assets_differ"
    ACCOUNT_CLOSED = "account_closed"
    REF_DIFFERS = "ref_differs"
    PAYER_DIFFERS = "payer_differs"
    CORRECTED_NOT_FOUND = "corrected_not_found"
    CORRECTED_DIFFERS = "corrected_differs"
    CORRECTION_TOO_LARGE = "correction_too_large"
    WINDOW_PASSED = "window_passed"
    INSUFFICIENT_FUNDS = "insufficient_funds"
    BALANCE_OUT_OF_RANGE = "balance_out_of_range"
    LINKED_FAILED = "linked_failed"


@dataclass(frozen=True, kw_only=True, slots=True)
class Transfer:
    """One movement as its caller states it.

    `debit` loses `amount_micro`; `credit` gains `amount_micro - fee_micro`; `fee_account` gains `fee_micro`.
    The three sum to zero whatever the numbers are. A refund's fee is negative: the platform gives back its
    part. `window_no` numbers the captures of a hold, upwards. `corrects` names the transfer that a refund or
    an adjustment sets right. `linked` ties this transfer to the next of its batch: they post together or not
    at all. `event_ms` is when it happened, for reports; what counts is when it was posted.
    """

    id: UUID
    kind: TransferKind
    debit: str
    credit: str
    amount_micro: int
    event_ms: int
    fee_account: str | None = None
    fee_micro: int = 0
    ref: str = ""
    window_no: int | None = None
    corrects: UUID | None = None
    reason: str = ""
    linked: bool = False

    @property
    def gross_micro(self) -> int:
        """What all payers of this transfer gave together: a refund is paid by the seller and the platform."""
        return self.amount_micro if self.fee_micro >= 0 else self.amount_micro - self.fee_micro


class Outcome(NamedTuple):
    """The answer to one transfer: where it stands, and each account's sequence and balance after it.

    A tuple: there is one for every transfer, and a frozen dataclass takes four times as long to make.
    """

    id: UUID
    status: Status
    seq: int = 0
    posted_ms: int = 0
    debit_seq: int = 0
    debit_balance_micro: int = 0
    credit_seq: int = 0
    credit_balance_micro: int = 0
    fee_seq: int = 0
    fee_balance_micro: int = 0

    @property
    def ok(self) -> bool:
        """The transfer is in the ledger, by this call or by an earlier one with the same content."""
        return self.status is Status.POSTED or self.status is Status.EXISTS


class Posted(NamedTuple):
    """A transfer in the ledger."""

    transfer: Transfer
    outcome: Outcome


@dataclass(frozen=True, kw_only=True, slots=True)
class Leg:
    """What one transfer did to one account: its `account_seq`-th movement, and the balance after it."""

    seq: int
    transfer_id: UUID
    kind: TransferKind
    account_seq: int
    delta_micro: int
    balance_micro: int
    ref: str
    reason: str
    event_ms: int
    posted_ms: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Statement:
    """A page of an account's movements: opening balance, legs in order, closing balance.

    `next_after_seq` is what to pass as `after_seq` for the next page; None when this is the last.
    """

    code: str
    opening_micro: int
    closing_micro: int
    legs: tuple[Leg, ...]
    next_after_seq: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Bill:
    """Everything that names one job, and what it comes to."""

    ref: str
    held_micro: int
    captured_micro: int
    fee_micro: int
    released_micro: int
    refunded_micro: int
    remaining_micro: int
    transfers: tuple[Posted, ...]
    next_after_seq: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialBalance:
    """Sum of balances per kind of account, for one asset. `total_micro` is zero."""

    asset: str
    by_kind: Mapping[AccountKind, int]

    @property
    def total_micro(self) -> int:
        return sum(self.by_kind.values())


def deposit(
    *, transfer_id: UUID, account_id: str, amount_micro: int, event_ms: int, ref: str = "", reason: str = ""
) -> Transfer:
    return Transfer(
        id=transfer_id,
        kind=TransferKind.DEPOSIT,
        debit=ISSUANCE,
        credit=wallet_code(account_id),
        amount_micro=amount_micro,
        event_ms=event_ms,
        ref=ref,
        reason=reason,
    )


def withdraw(
    *, transfer_id: UUID, account_id: str, amount_micro: int, event_ms: int, ref: str = "", reason: str = ""
) -> Transfer:
    """From a seller's earnings to the world."""
    return Transfer(
        id=transfer_id,
        kind=TransferKind.WITHDRAW,
        debit=earnings_code(account_id),
        credit=PAYOUTS,
        amount_micro=amount_micro,
        event_ms=event_ms,
        ref=ref,
        reason=reason,
    )


def hold(
    *,
    transfer_id: UUID,
    account_id: str,
    job_id: str,
    amount_micro: int,
    event_ms: int,
    linked: bool = False,
) -> Transfer:
    """Set a job's budget aside; again for the same job raises it. Opens the hold's account by itself."""
    return Transfer(
        id=transfer_id,
        kind=TransferKind.HOLD,
        debit=wallet_code(account_id),
        credit=hold_code(job_id),
        amount_micro=amount_micro,
        event_ms=event_ms,
        ref=job_id,
        linked=linked,
    )


def capture(
    *,
    transfer_id: UUID,
    job_id: str,
    seller_id: str,
    amount_micro: int,
    fee_micro: int,
    event_ms: int,
    window_no: int | None = None,
    linked: bool = False,
) -> Transfer:
    """Pay for what was used: `amount_micro` leaves the hold, of which the platform keeps `fee_micro`."""
    return Transfer(
        id=transfer_id,
        kind=TransferKind.CAPTURE,
        debit=hold_code(job_id),
        credit=earnings_code(seller_id),
        amount_micro=amount_micro,
        event_ms=event_ms,
        fee_account=FEE if fee_micro else None,
        fee_micro=fee_micro,
        ref=job_id,
        window_no=window_no,
        linked=linked,
    )


def release(
    *,
    transfer_id: UUID,
    account_id: str,
    job_id: str,
    amount_micro: int,
    event_ms: int,
    linked: bool = False,
) -> Transfer:
    """Give the buyer back what was not used. A release that empties the hold closes it for good."""
    return Transfer(
        id=transfer_id,
        kind=TransferKind.RELEASE,
        debit=hold_code(job_id),
        credit=wallet_code(account_id),
        amount_micro=amount_micro,
        event_ms=event_ms,
        ref=job_id,
        linked=linked,
    )


def refund(  # noqa: PLR0913 - each is a different fact, and all are keywords
    *,
    transfer_id: UUID,
    corrects: UUID,
    job_id: str,
    seller_id: str,
    account_id: str,
    seller_micro: int,
    fee_micro: int,
    event_ms: int,
    reason: str,
    linked: bool = False,
) -> Transfer:
    """Give back part of a capture: `seller_micro` of the seller's, `fee_micro` (not negative) of the fee."""
    return Transfer(
        id=transfer_id,
        kind=TransferKind.REFUND,
        debit=earnings_code(seller_id),
        credit=wallet_code(account_id),
        amount_micro=seller_micro,
        event_ms=event_ms,
        fee_account=FEE if fee_micro else None,
        fee_micro=-fee_micro,
        ref=job_id,
        corrects=corrects,
        reason=reason,
        linked=linked,
    )


def adjustment(  # noqa: PLR0913 - as above
    *,
    transfer_id: UUID,
    corrects: UUID,
    debit: str,
    credit: str,
    amount_micro: int,
    event_ms: int,
    reason: str,
    ref: str = "",
    linked: bool = False,
) -> Transfer:
    """An operator's correction; one of its accounts is a party to what it corrects, and none is a hold."""
    return Transfer(
        id=transfer_id,
        kind=TransferKind.ADJUSTMENT,
        debit=debit,
        credit=credit,
        amount_micro=amount_micro,
        event_ms=event_ms,
        ref=ref,
        corrects=corrects,
        reason=reason,
        linked=linked,
    )
