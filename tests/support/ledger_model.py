"""What the ledger ought to answer, written a second time and differently, for tests to hold it against.

It knows nothing of codes, sequences or batches: only people, jobs and how much each has.
"""

from collections import defaultdict
from dataclasses import dataclass
from uuid import UUID

from ledger.entries import Transfer


@dataclass
class Budget:
    payer: str
    left: int = 0
    window: int = 0
    closed: bool = False


@dataclass
class Captured:
    seller: str
    payer: str
    seller_left: int
    fee_left: int


class Model:
    def __init__(self) -> None:
        self.wallets: defaultdict[str, int] = defaultdict(int)
        self.earned: defaultdict[str, int] = defaultdict(int)
        self.budgets: dict[str, Budget] = {}
        self.captured: dict[UUID, Captured] = {}
        self.fee = self.issued = self.paid_out = 0
        # What the operator's corrections gave, less what they took.
        self.adjusted = 0
        self._answers: dict[UUID, tuple[object, str]] = {}

    def expect(self, transfer: Transfer) -> str:
        """The answer, and its effect on the model."""
        said = (
            transfer.kind, transfer.debit, transfer.credit, transfer.amount_micro, transfer.fee_micro,
            transfer.window_no, transfer.corrects, transfer.reason,
        )  # fmt: skip
        if transfer.id in self._answers:
            before, answer = self._answers[transfer.id]
            if said != before:
                return "exists_with_different_content"
            return "exists" if answer == "posted" else answer
        answer = getattr(self, f"_{transfer.kind}")(transfer, transfer.amount_micro) or "posted"
        self._answers[transfer.id] = said, answer
        return answer

    def total(self) -> int:
        people = sum(self.wallets.values()) + sum(self.earned.values())
        return people + sum(budget.left for budget in self.budgets.values()) + self.fee + self.paid_out

    def _deposit(self, transfer: Transfer, amount: int) -> str | None:
        self.wallets[_name(transfer.credit)] += amount
        self.issued += amount
        return None

    def _withdraw(self, transfer: Transfer, amount: int) -> str | None:
        who = _name(transfer.debit)
        if self.earned[who] < amount:
            return "insufficient_funds"
        self.earned[who] -= amount
        self.paid_out += amount
        return None

    def _hold(self, transfer: Transfer, amount: int) -> str | None:
        payer, job = _name(transfer.debit), _name(transfer.credit)
        budget = self.budgets.get(job, Budget(payer=payer))
        if budget.closed:
            return "account_closed"
        if budget.payer != payer:
            return "payer_differs"
        if self.wallets[payer] < amount:
            return "insufficient_funds"
        self.wallets[payer] -= amount
        budget.left += amount
        self.budgets[job] = budget
        return None

    def _capture(self, transfer: Transfer, amount: int) -> str | None:
        budget, seller = self.budgets.get(_name(transfer.debit)), _name(transfer.credit)
        if budget is None:
            return "account_not_found"
        if budget.closed:
            return "account_closed"
        if transfer.window_no is not None and transfer.window_no <= budget.window:
            return "window_passed"
        if budget.left < amount:
            return "insufficient_funds"
        budget.left -= amount
        budget.window = transfer.window_no or budget.window
        self.earned[seller] += amount - transfer.fee_micro
        self.fee += transfer.fee_micro
        self.captured[transfer.id] = Captured(
            seller, budget.payer, amount - transfer.fee_micro, transfer.fee_micro
        )
        return None

    def _release(self, transfer: Transfer, amount: int) -> str | None:
        budget, payer = self.budgets.get(_name(transfer.debit)), _name(transfer.credit)
        if budget is None:
            return "account_not_found"
        if budget.closed:
            return "account_closed"
        if budget.payer != payer:
            return "payer_differs"
        if budget.left < amount:
            return "insufficient_funds"
        budget.left -= amount
        budget.closed = budget.left == 0
        self.wallets[payer] += amount
        return None

    def _refund(self, transfer: Transfer, amount: int) -> str | None:
        seller, payer = _name(transfer.debit), _name(transfer.credit)
        assert transfer.corrects is not None
        if self._answers.get(transfer.corrects, (None, ""))[1] != "posted":
            return "corrected_not_found"
        original = self.captured.get(transfer.corrects)
        if original is None or (original.seller, original.payer) != (seller, payer):
            return "corrected_differs"
        if amount > original.seller_left or -transfer.fee_micro > original.fee_left:
            return "correction_too_large"
        if self.earned[seller] < amount or self.fee < -transfer.fee_micro:
            return "insufficient_funds"
        original.seller_left -= amount
        original.fee_left += transfer.fee_micro
        self.earned[seller] -= amount
        self.fee += transfer.fee_micro
        self.wallets[payer] += amount - transfer.fee_micro
        return None

    def _adjustment(self, transfer: Transfer, amount: int) -> str | None:
        """Between the operator and a person; what stands against it is not looked at."""
        wallets = {"wallet": self.wallets, "earnings": self.earned}
        debit, credit = (wallets.get(code.partition(":")[0]) for code in (transfer.debit, transfer.credit))
        if debit is not None and debit[_name(transfer.debit)] < amount:
            return "insufficient_funds"
        for purse, code, delta in ((debit, transfer.debit, -amount), (credit, transfer.credit, amount)):
            if purse is None:
                self.adjusted -= delta
            else:
                purse[_name(code)] += delta
        return None


def _name(code: str) -> str:
    return code.partition(":")[2]
