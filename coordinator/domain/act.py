"""What somebody did that needs trust or moves money: kept for ever, as it was asked for."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Act:
    id: str
    happened_ms: int
    # An account's or a host's id; "" where nobody could be known.
    who: str
    token_id: str
    address: str
    rpc: str
    request: str
    # "OK", or the code of its refusal.
    result: str
    request_id: str
