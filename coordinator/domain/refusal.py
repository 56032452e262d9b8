"""Refusals that a caller must expect: a stable code, a sentence, and the field at fault.

    Refusal
        InvalidField, Unauthenticated, Forbidden, NotFound, RequestIdReused, InsufficientFunds,
        JobEnded, EnrolmentRefused, NameTaken, Superseded, SpendingCap, RateLimited

`api/status.py` gives each code its gRPC status, in one total table.
"""

from enum import StrEnum


class RefusalCode(StrEnum):
    """Names as in the contract, without their prefix."""

    INVALID_FIELD = "INVALID_FIELD"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    FORBIDDEN = "FORBIDDEN"
    NOT_FOUND = "NOT_FOUND"
    REQUEST_ID_REUSED = "REQUEST_ID_REUSED"
    INSUFFICIENT_FUNDS = "INSUFFICIENT_FUNDS"
    JOB_ENDED = "JOB_ENDED"
    ENROLMENT_REFUSED = "ENROLMENT_REFUSED"
    NAME_TAKEN = "NAME_TAKEN"
    SUPERSEDED = "SUPERSEDED"
    UNAVAILABLE = "UNAVAILABLE"
    INTERNAL = "INTERNAL"
    SPENDING_CAP = "SPENDING_CAP"
    RATE_LIMITED = "RATE_LIMITED"


class Refusal(Exception):  # noqa: N818 - a refusal is an answer, not an error
    """Said to a caller; nothing was changed."""

    def __init__(
        self,
        code: RefusalCode,
        sentence: str,
        *,
        field: str = "",
        remedy: str = "",
        retry_ms: int = 0,
        is_act: bool = False,
    ) -> None:
        super().__init__(sentence)
        # That it was tried is kept in the log of acts.
        self.is_act = is_act
        # After so long it may be otherwise; 0 where nobody knows.
        self.retry_ms = retry_ms
        self.code = code
        self.sentence = sentence
        self.field = field
        self.remedy = remedy


def invalid(field: str, remedy: str) -> Refusal:
    return Refusal(RefusalCode.INVALID_FIELD, f"{field}: {remedy}", field=field, remedy=remedy)


def not_found(kind: str, name: str) -> Refusal:
    return Refusal(RefusalCode.NOT_FOUND, f"there is no {kind} {name!r} that you may see")
