"""What a buyer gets back when the host was at fault: the published rule.

Time that the host's fault made worthless is not paid: the whole attempt when it was paid for less than ten
minutes, otherwise its last ten minutes. Each part goes back through the charge that it came from.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from coordinator.domain.metering import Line
from coordinator.domain.pricing import charge_between

WORTHLESS_MS = 600_000


@dataclass(frozen=True, kw_only=True)
class Credit:
    """What goes back of one bill line: from the seller, and from the platform."""

    number: int
    earning_micro: int
    fee_micro: int

    @property
    def amount_micro(self) -> int:
        return self.earning_micro + self.fee_micro


@dataclass(frozen=True, kw_only=True)
class Refund:
    """What the operator gave back of a job, by its own judgement."""

    transfer_id: str
    amount_micro: int
    reason: str
    given_ms: int


def credit_back(
    hour_price_micro: int, fee_ppm: int, lines: Sequence[tuple[Line, str]]
) -> list[tuple[Credit, str]]:
    """The credits of an attempt that the host spoiled, each with the transfer that it corrects."""
    if not lines:
        return []
    paid_ms = lines[-1][0].billed_through_ms
    from_ms = paid_ms - WORTHLESS_MS if paid_ms >= WORTHLESS_MS else 0
    found, begin_ms = list[tuple[Credit, str]](), 0
    for line, transfer_id in lines:
        end_ms = line.billed_through_ms
        back = charge_between(hour_price_micro, fee_ppm, max(begin_ms, min(from_ms, end_ms)), end_ms)
        if back.charge_micro:
            credit = Credit(
                number=line.record.number, earning_micro=back.earning_micro, fee_micro=back.fee_micro
            )
            found.append((credit, transfer_id))
        begin_ms = end_ms
    return found
