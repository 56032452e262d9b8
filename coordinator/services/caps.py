"""Spending caps: set, shown, and held to whenever a job takes more money."""

from coordinator.domain.account import Account
from coordinator.domain.cap import Month, SpendingCap, month_of
from coordinator.domain.event import EventKind, NewEvent
from coordinator.domain.refusal import Refusal, RefusalCode
from coordinator.domain.states import Cause
from coordinator.services.requests import fingerprint, once
from coordinator.store.ports import Transaction
from ledger.money import format_credits


def used_micro(tx: Transaction, account_id: str, month: Month) -> int:
    return tx.spent([account_id], month.began_ms, month.ends_ms).get(account_id, 0)


def set_cap(
    tx: Transaction, account: Account, request_id: str, cap: SpendingCap | None, now_ms: int
) -> SpendingCap | None:
    """None takes the cap away."""

    def make() -> str:
        tx.save_cap(account.id, cap)
        text = f"{format_credits(cap.month_micro)} credits a month" if cap else "none"
        event = NewEvent(
            kind=EventKind.CAP_SET,
            account_id=account.id,
            text=f"the spending cap is now: {text}",
            cause=Cause.BUYER,
        )
        tx.append_events([event], now_ms)
        return ""

    content = (cap.month_micro, cap.alert_percent) if cap else ("none",)
    once(tx, account.id, request_id, fingerprint("cap", *content), make)
    return tx.caps([account.id]).get(account.id)


def over(cap: SpendingCap, used: int, month: Month, field: str) -> Refusal:
    """What would go beyond the cap is refused with what is left of it."""
    return Refusal(
        RefusalCode.SPENDING_CAP,
        f"your spending cap of {format_credits(cap.month_micro)} credits for {month.name} leaves less than "
        f"that: {format_credits(used)} are used",
        field=field,
        remedy=f"at most {format_credits(cap.left_micro(used))} credits this month, or a higher cap",
    )


def notice(cap: SpendingCap, used: int, month: Month) -> str:
    percent = used * 100 // cap.month_micro
    return (
        f"{percent} % of your spending cap for {month.name} is used: {format_credits(used)} of "
        f"{format_credits(cap.month_micro)} credits"
    )


def check_more(tx: Transaction, account_id: str, since_ms: int, more_micro: int, field: str) -> None:
    """A job counts in the month in which it was taken in, also what is added later."""
    cap = tx.caps([account_id]).get(account_id)
    if cap is None:
        return
    month = month_of(since_ms)
    used = used_micro(tx, account_id, month)
    if used + more_micro > cap.month_micro:
        raise over(cap, used, month, field)
