"""The chart of accounts: what kinds there are, how they are written, and how low each may go.

A code is `kind`, or `kind:owner` where there is one account per owner. Credits are the asset that goes
without saying; an account of another asset ends in `@asset`.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

ASSET = "credit"


class AccountKind(StrEnum):
    ISSUANCE = "issuance"
    PAYOUTS = "payouts"
    ADJUSTMENTS = "adjustments"
    SUSPENSE = "suspense"
    FEE = "fee"
    WALLET = "wallet"
    HOLD = "hold"
    EARNINGS = "earnings"


@dataclass(frozen=True, kw_only=True)
class KindOfAccount:
    """One line of the chart."""

    number: int
    floor_micro: int | None
    owned: bool
    means: str


# The one table: stored numbers, floors, the grammar of codes and the page in the docs come from it.
CHART: dict[AccountKind, KindOfAccount] = {
    AccountKind.ISSUANCE: KindOfAccount(
        number=1,
        floor_micro=None,
        owned=False,
        means="the other side of every deposit: credits in being, negated",
    ),
    AccountKind.PAYOUTS: KindOfAccount(
        number=2, floor_micro=0, owned=False, means="the other side of every withdrawal: credits paid out"
    ),
    AccountKind.ADJUSTMENTS: KindOfAccount(
        number=3, floor_micro=None, owned=False, means="the other side of an operator's correction"
    ),
    AccountKind.SUSPENSE: KindOfAccount(
        number=4, floor_micro=0, owned=False, means="credits that came in and whose owner is not known yet"
    ),
    AccountKind.FEE: KindOfAccount(
        number=5, floor_micro=0, owned=False, means="what the platform has earned"
    ),
    AccountKind.WALLET: KindOfAccount(number=6, floor_micro=0, owned=True, means="what a buyer can spend"),
    AccountKind.HOLD: KindOfAccount(
        number=7, floor_micro=0, owned=True, means="the budget of one job, set aside"
    ),
    AccountKind.EARNINGS: KindOfAccount(
        number=8, floor_micro=0, owned=True, means="what a seller has earned"
    ),
}
_KINDS = frozenset(kind.value for kind in AccountKind)
KIND_BY_NUMBER = {line.number: kind for kind, line in CHART.items()}

ISSUANCE = "issuance"
PAYOUTS = "payouts"
ADJUSTMENTS = "adjustments"
SUSPENSE = "suspense"
FEE = "fee"

# No comma, space, colon or at sign: codes are joined, split and exported.
_OWNER = r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}"
_CODE = re.compile(
    rf"(?P<kind>[a-z]+)(?::(?P<owner>{_OWNER}))?(?:@(?P<asset>[a-z][a-z0-9]{{0,15}}))?", re.ASCII
)


class CodeError(ValueError):
    """A code that the chart does not know; the message says why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Code:
    kind: AccountKind
    owner: str = ""
    asset: str = ASSET

    @property
    def floor_micro(self) -> int | None:
        return CHART[self.kind].floor_micro

    def __str__(self) -> str:
        owner = f":{self.owner}" if self.owner else ""
        asset = "" if self.asset == ASSET else f"@{self.asset}"
        return f"{self.kind}{owner}{asset}"


def parse_code(text: str) -> Code:
    found = _CODE.fullmatch(text)
    if found is None or found["kind"] not in _KINDS:
        raise CodeError(
            f"{text[:100]!r} is no account code: write one of {', '.join(AccountKind)}, as wallet:owner"
        )
    kind = AccountKind(found["kind"])
    if CHART[kind].owned != (found["owner"] is not None):
        shape = f"{kind}:owner" if CHART[kind].owned else str(kind)
        raise CodeError(f"{text[:100]!r} is no account code: {kind} is written {shape}")
    code = Code(kind=kind, owner=found["owner"] or "", asset=found["asset"] or ASSET)
    if str(code) != text:
        raise CodeError(f"{text!r} is written {code}: an account has one name")
    return code


def wallet(account_id: str, asset: str = ASSET) -> str:
    return _owned("wallet", account_id, asset)


def hold(job_id: str, asset: str = ASSET) -> str:
    return _owned("hold", job_id, asset)


def earnings(account_id: str, asset: str = ASSET) -> str:
    return _owned("earnings", account_id, asset)


def _owned(kind: str, owner: str, asset: str) -> str:
    """As `Code` writes it, which takes ten times as long: every usage record names two."""
    return f"{kind}:{owner}" if asset == ASSET else f"{kind}:{owner}@{asset}"
