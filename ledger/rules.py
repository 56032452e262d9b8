"""The one pure function that decides a batch of transfers: no clock, no I/O, no randomness.

Given the accounts that a batch names and what is known of its ids, `decide` answers every transfer in order
and says what has to be written. It is the same on every database, so a replay of the same transfers gives
the same balances and sequences everywhere.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from uuid import UUID

from ledger.chart import CHART, AccountKind, CodeError, parse_code
from ledger.entries import Outcome, Posted, Status, Transfer, TransferKind
from ledger.refusals import (
    Account,
    AccountRow,
    Original,
    Parties,
    Refused,
    refuse_accounts,
    refuse_balances,
    refuse_correction,
    refuse_words,
)

DIGEST_LENGTH = 16
# Looked up once, as in ledger.refusals.
_POSTED, _RELEASE = Status.POSTED, TransferKind.RELEASE


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """What a batch needs to know of the ledger."""

    accounts: Mapping[str, AccountRow]
    known: Mapping[UUID, Posted | Refused]
    originals: Mapping[UUID, Original]
    last_seq: int
    last_posted_ms: int
    last_account_id: int


@dataclass(kw_only=True)
class Decision:
    """What to answer, and what to write so that the answer is true."""

    outcomes: list[Outcome] = field(default_factory=list)
    posted: list[Posted] = field(default_factory=list)
    refused: dict[UUID, Refused] = field(default_factory=dict)
    opened: list[Account] = field(default_factory=list)
    closed: list[Account] = field(default_factory=list)
    accounts: Mapping[str, Account] = field(default_factory=dict)
    originals: Mapping[UUID, Original] = field(default_factory=dict)


def digest_of(transfer: Transfer) -> bytes:
    """Stands for a transfer's content. When it happened and how it was linked are no part of it: a retry may
    tell those differently and is still the same transfer.
    """
    corrects = transfer.corrects.hex if transfer.corrects else None
    content = [
        transfer.kind, transfer.debit, transfer.credit, transfer.amount_micro, transfer.fee_account,
        transfer.fee_micro, transfer.ref, transfer.window_no, corrects, transfer.reason,
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(content).encode()).digest()[:DIGEST_LENGTH]


def decide(snapshot: Snapshot, transfers: Sequence[Transfer], now_ms: int) -> Decision:
    """Answer each transfer as if they came one by one."""
    return Batch(snapshot, now_ms).decide(transfers)


def in_parts(transfers: Sequence[Transfer], size: int) -> Iterator[Sequence[Transfer]]:
    """The batch cut into parts of about this size, none through a chain of linked transfers."""
    at = 0
    while at < len(transfers):
        end = min(at + size, len(transfers))
        while end < len(transfers) and transfers[end - 1].linked:
            end += 1
        yield transfers[at:end]
        at = end


class Batch:
    """A batch that is decided at once, or part by part with the same answers: what one part is decided to be
    can be on its way to the database while the next is decided.
    """

    def __init__(self, snapshot: Snapshot, now_ms: int) -> None:
        if now_ms < snapshot.last_posted_ms:
            raise ValueError("the ledger's time never goes back")
        self.accounts = {code: Account.read(row) for code, row in snapshot.accounts.items()}
        self.originals = {key: replace(original) for key, original in snapshot.originals.items()}
        # By number: a UUID takes longer to be hashed than to be made.
        self.known = {key.int: answer for key, answer in snapshot.known.items()}
        self.seq = snapshot.last_seq
        self.account_id = snapshot.last_account_id
        self._now_ms = now_ms
        self.decision = Decision(accounts=self.accounts, originals=self.originals)

    def decide(self, transfers: Sequence[Transfer]) -> Decision:
        """Answer the next transfers of the batch."""
        self.decision = Decision(accounts=self.accounts, originals=self.originals)
        outcomes = self.decision.outcomes
        count = len(transfers)
        at = 0
        while at < count:
            if not transfers[at].linked:
                outcomes.append(self.settle(transfers[at]))
                at += 1
                continue
            end = at
            while end < count and transfers[end].linked:
                end += 1
            outcomes.extend(self.settle_linked(transfers[at : end + 1], left_open=end == count))
            at = end + 1
        return self.decision

    def settle(self, transfer: Transfer) -> Outcome:
        known = self.known.get(transfer.id.int)
        if known is not None:
            return _answer_again(transfer, known)
        outcome = self._try(transfer)
        if isinstance(outcome, Outcome):
            return outcome
        return self._refuse(transfer, outcome)

    def settle_linked(self, chain: Sequence[Transfer], *, left_open: bool) -> list[Outcome]:
        """All of them or none. Members that were answered before keep their answers."""
        if left_open:
            return [
                self._refuse_or_repeat(
                    member, Status.LINKED_CHAIN_OPEN if member is chain[-1] else Status.LINKED_FAILED
                )
                for member in chain
            ]
        before = _Mark(self, chain)
        outcomes: list[Outcome] = []
        culprit, why = -1, Status.LINKED_FAILED
        for index, member in enumerate(chain):
            known = self.known.get(member.id.int)
            answer = _answer_again(member, known) if known is not None else self._try(member)
            if isinstance(answer, Status):
                culprit, why = index, answer
                break
            outcomes.append(answer)
            if not answer.ok:
                break
        if len(outcomes) == len(chain) and len({outcome.status for outcome in outcomes}) == 1:
            return outcomes
        before.restore(self)
        return [
            self._refuse_or_repeat(member, why if index == culprit else Status.LINKED_FAILED)
            for index, member in enumerate(chain)
        ]

    def _refuse_or_repeat(self, transfer: Transfer, status: Status) -> Outcome:
        known = self.known.get(transfer.id.int)
        return _answer_again(transfer, known) if known is not None else self._refuse(transfer, status)

    def _refuse(self, transfer: Transfer, status: Status) -> Outcome:
        refused = Refused(id=transfer.id, status=status, digest=digest_of(transfer), after_seq=self.seq)
        self.known[transfer.id.int] = self.decision.refused[transfer.id] = refused
        return Outcome(id=transfer.id, status=status)

    def _try(self, transfer: Transfer) -> Outcome | Status:
        refusal = refuse_words(transfer)
        if refusal is not None:
            return refusal
        parties = self._parties(transfer)
        if parties is None:
            return Status.ACCOUNT_NOT_FOUND
        refusal = refuse_accounts(transfer, parties)
        if refusal is not None:
            return refusal
        original = None
        if transfer.corrects is not None:
            original = self._original(transfer.corrects)
            refusal = refuse_correction(transfer, parties, original)
            if refusal is not None:
                return refusal
        refusal = refuse_balances(transfer, parties)
        if refusal is not None:
            return refusal
        return self._post(transfer, parties, original)

    def _parties(self, transfer: Transfer) -> Parties | None:
        debit = self.accounts.get(transfer.debit) or self._unopened(transfer.debit, None)
        if debit is None:
            return None
        credit = self.accounts.get(transfer.credit) or self._unopened(
            transfer.credit, debit if transfer.kind is TransferKind.HOLD else None
        )
        fee = None
        if transfer.fee_account is not None:
            fee = self.accounts.get(transfer.fee_account) or self._unopened(transfer.fee_account, None)
            if fee is None:
                return None
        return None if credit is None else Parties(debit, credit, fee)

    def _unopened(self, text: str, payer: Account | None) -> Account | None:
        """An account that opens by itself: a hold when it is filled, and those of which there is only one.

        It becomes the ledger's only with the transfer that needed it. A wallet or earnings never opens so: a
        misspelt owner must be refused, not paid.
        """
        try:
            code = parse_code(text)
        except CodeError:
            return None
        if code.kind is AccountKind.HOLD:
            if payer is None or payer.kind is not AccountKind.WALLET:
                return None
        elif CHART[code.kind].owned:
            return None
        return Account(
            id=0,
            code=text,
            kind=code.kind,
            owner=code.owner,
            asset=code.asset,
            floor_micro=code.floor_micro,
            payer=payer.id if payer else None,
        )

    def _original(self, transfer_id: UUID) -> Original | None:
        original = self.originals.get(transfer_id)
        if original is not None:
            return original
        known = self.known.get(transfer_id.int)
        if not isinstance(known, Posted) or known.outcome.seq <= 0:
            return None
        return self._remember_original(known)

    def _remember_original(self, posted: Posted) -> Original | None:
        """A transfer of this very batch may be corrected by a later one."""
        transfer = posted.transfer
        debit, credit = self.accounts.get(transfer.debit), self.accounts.get(transfer.credit)
        if debit is None or credit is None:
            return None
        fee = self.accounts.get(transfer.fee_account) if transfer.fee_account else None
        original = original_of(posted, debit=debit, credit=credit, fee=fee)
        self.originals[transfer.id] = original
        return original

    def _open(self, account: Account) -> None:
        self.account_id += 1
        account.id = self.account_id
        self.accounts[account.code] = account
        self.decision.opened.append(account)

    def _post(self, transfer: Transfer, parties: Parties, original: Original | None) -> Outcome:
        debit, credit, fee = parties.debit, parties.credit, parties.fee
        if not (debit.id and credit.id and (fee is None or fee.id)):
            for account in (debit, credit, fee):
                if account is not None and not account.id:
                    self._open(account)
        self.seq += 1
        debit.seq += 1
        debit.balance_micro -= transfer.amount_micro
        if transfer.window_no is not None:
            debit.window_no = transfer.window_no
        credit.seq += 1
        credit.balance_micro += transfer.amount_micro - transfer.fee_micro
        fee_seq = fee_balance = 0
        if fee is not None:
            fee.seq = fee_seq = fee.seq + 1
            fee.balance_micro = fee_balance = fee.balance_micro + transfer.fee_micro
        if transfer.kind is _RELEASE and debit.balance_micro == 0:
            debit.closed = True
            self.decision.closed.append(debit)
        if original is not None:
            _note_correction(original, transfer)
        outcome = Outcome(
            transfer.id, _POSTED, self.seq, self._now_ms,
            debit.seq, debit.balance_micro, credit.seq, credit.balance_micro, fee_seq, fee_balance,
        )  # fmt: skip
        posted = Posted(transfer, outcome)
        self.known[transfer.id.int] = posted
        self.decision.posted.append(posted)
        return outcome


class _Mark:
    """What a chain may change, as it was before."""

    def __init__(self, batch: Batch, chain: Sequence[Transfer]) -> None:
        accounts, originals = batch.accounts, batch.originals
        codes = {code for member in chain for code in (member.debit, member.credit, member.fee_account)}
        self._accounts = {code: accounts[code].copy() for code in codes if code in accounts}
        self._corrected = {member.corrects for member in chain if member.corrects is not None}
        self._originals = {key: replace(originals[key]) for key in self._corrected if key in originals}
        self._unknown = [member.id.int for member in chain if member.id.int not in batch.known]
        self._counters = batch.seq, batch.account_id
        decision = batch.decision
        self._lengths = len(decision.posted), len(decision.opened), len(decision.closed)

    def restore(self, batch: Batch) -> None:
        decision = batch.decision
        posted, opened, closed = self._lengths
        for account in decision.opened[opened:]:
            del batch.accounts[account.code]
        del decision.posted[posted:], decision.opened[opened:], decision.closed[closed:]
        batch.accounts.update(self._accounts)
        for number in self._unknown:
            batch.known.pop(number, None)
        for transfer_id in self._corrected:
            batch.originals.pop(transfer_id, None)
        batch.originals.update(self._originals)
        batch.seq, batch.account_id = self._counters


def original_of(posted: Posted, *, debit: Account, credit: Account, fee: Account | None) -> Original:
    transfer = posted.transfer
    return Original(
        seq=posted.outcome.seq,
        kind=transfer.kind,
        parties=frozenset(account.id for account in (debit, credit, fee) if account is not None),
        payer=debit.payer,
        debit=debit.id,
        credit=credit.id,
        amount_micro=transfer.amount_micro,
        fee_micro=transfer.fee_micro,
    )


def _note_correction(original: Original, transfer: Transfer) -> None:
    original.corrected_gross_micro += transfer.gross_micro
    if transfer.kind is TransferKind.REFUND:
        original.refunded_micro += transfer.amount_micro
        original.refunded_fee_micro -= transfer.fee_micro


def _answer_again(transfer: Transfer, known: Posted | Refused) -> Outcome:
    if isinstance(known, Refused):
        same = known.digest == digest_of(transfer)
        return Outcome(id=transfer.id, status=known.status if same else Status.EXISTS_WITH_DIFFERENT_CONTENT)
    if digest_of(known.transfer) != digest_of(transfer):
        return Outcome(id=transfer.id, status=Status.EXISTS_WITH_DIFFERENT_CONTENT)
    return known.outcome._replace(status=Status.EXISTS)
