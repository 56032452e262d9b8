"""Computes a bill again from its evidence, offline. Pure; trusts no figure that it can compute.

What it can't compute it bounds: how much run time the coordinator witnessed is its own testimony, so a
line is checked to pay no more than that, and no more than the host recorded.
"""

from dataclasses import dataclass

from cli.model import Bill, BillAttempt, BillLine, EndReason
from runtime.evidence import chain_start, is_genuine

MS_PER_HOUR = 3_600_000
PPM = 1_000_000
# What a host's fault makes worthless, at the most.
WORTHLESS_MS = 600_000
# Ends after which it goes back: the host's own, but for the one that the buyer had asked for beforehand.
CREDITED = frozenset(
    {
        EndReason.START_FAILED,
        EndReason.HOST_LOST,
        EndReason.HOST_FORGOT,
        EndReason.GPU_LOST,
        EndReason.RECLAIMED,
        EndReason.CLAIM_REFUSED,
    }
)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """`problems` is empty when the bill is right."""

    lines_checked: int
    charged_micro: int
    problems: tuple[str, ...]


def verify_bill(bill: Bill) -> Verdict:
    problems: list[str] = []
    charged_micro = 0
    for attempt in bill.attempts:
        left_micro = bill.held_micro - charged_micro
        if attempt.hour_price_micro * attempt.run_ms_affordable // MS_PER_HOUR > left_micro:
            problems.append(
                f"{attempt.attempt_id}: {attempt.run_ms_affordable} ms would cost more than the "
                f"{left_micro} micro-credits that were left"
            )
        problems += _attempt_problems(attempt)
        problems += _credit_problems(attempt)
        charged_micro += sum(line.charge_micro for line in attempt.lines)
    if charged_micro != bill.charged_micro:
        problems.append(
            f"the lines add up to {charged_micro} micro-credits, the bill says {bill.charged_micro}"
        )
    if charged_micro > bill.held_micro:
        problems.append(f"{charged_micro} micro-credits are more than the {bill.held_micro} held")
    credited_micro = sum(c.earning_micro + c.fee_micro for a in bill.attempts for c in a.credits)
    if credited_micro != bill.credited_micro:
        problems.append(
            f"the credits add up to {credited_micro} micro-credits, the bill says {bill.credited_micro}"
        )
    refunded_micro = sum(refund.amount_micro for refund in bill.refunds)
    if refunded_micro != bill.refunded_micro or refunded_micro > charged_micro - credited_micro:
        problems.append(
            f"the refunds add up to {refunded_micro} micro-credits, the bill says {bill.refunded_micro}, of "
            f"{charged_micro - credited_micro} that the job has cost"
        )
    if bill.final and bill.released_micro != bill.held_micro - charged_micro:
        problems.append(
            f"{bill.held_micro - charged_micro} micro-credits were to be given back, the bill says "
            f"{bill.released_micro}"
        )
    return Verdict(
        lines_checked=sum(len(attempt.lines) for attempt in bill.attempts),
        charged_micro=charged_micro,
        problems=tuple(problems),
    )


def _attempt_problems(attempt: BillAttempt) -> list[str]:
    problems = []
    payable_ms = min(attempt.run_ms_affordable, attempt.run_ms_max)
    digest, end_ms = chain_start(attempt.attempt_id, attempt.epoch), 0
    billed_ms, charged_micro, fees_micro = 0, 0, 0
    for number, line in enumerate(attempt.lines, start=1):
        where = f"{attempt.attempt_id} line {number}"
        found = _record_problems(attempt, line, number, digest, end_ms)
        digest, end_ms = line.record.digest, line.record.end_ms
        billed_ms = max(billed_ms, min(end_ms, line.witnessed_ms, payable_ms))
        if line.billed_through_ms != billed_ms:
            found.append(f"{billed_ms} ms are billable, the line bills {line.billed_through_ms}")
        total_micro = attempt.hour_price_micro * billed_ms // MS_PER_HOUR
        if line.charge_micro != total_micro - charged_micro:
            found.append(f"the charge is {total_micro - charged_micro}, the line says {line.charge_micro}")
        charged_micro = total_micro
        found += _split_problems(line, fee_micro=total_micro * attempt.fee_ppm // PPM - fees_micro)
        fees_micro = total_micro * attempt.fee_ppm // PPM
        problems += [f"{where}: {problem}" for problem in found]
    return problems


def _credit_problems(attempt: BillAttempt) -> list[str]:
    """By the published rule: all of it when less than ten minutes were paid, else the last ten minutes."""
    due = attempt.end_reason in CREDITED
    if not attempt.credits and not due:
        return []
    if attempt.credits and not due and attempt.end_reason is not EndReason.UNSPECIFIED:
        return [f"{attempt.attempt_id}: it ended as {attempt.end_reason}, and yet something was credited"]
    paid_ms = attempt.lines[-1].billed_through_ms if attempt.lines else 0
    kept_ms = paid_ms - WORTHLESS_MS if paid_ms >= WORTHLESS_MS else 0
    due_micro = (
        attempt.hour_price_micro * paid_ms // MS_PER_HOUR - attempt.hour_price_micro * kept_ms // MS_PER_HOUR
    )
    given_micro = sum(credit.earning_micro + credit.fee_micro for credit in attempt.credits)
    if given_micro == due_micro:
        return []
    return [f"{attempt.attempt_id}: {due_micro} micro-credits were to be credited, {given_micro} were"]


def _record_problems(
    attempt: BillAttempt, line: BillLine, number: int, digest: bytes, end_ms: int
) -> list[str]:
    record, problems = line.record, []
    if line.attempt_id != attempt.attempt_id:
        problems.append(f"it belongs to {line.attempt_id}")
    if record.number != number:
        problems.append(f"its record has the number {record.number}")
    if record.start_ms != end_ms or record.end_ms <= record.start_ms:
        problems.append(f"its record runs from {record.start_ms} to {record.end_ms} ms, not on from {end_ms}")
    if record.previous_digest != digest:
        problems.append("its record does not follow the one before in the chain of digests")
    if not is_genuine(record):
        problems.append("its record was changed: the digest does not fit")
    if not {use.gpu_uuid for use in record.gpus} <= set(attempt.gpu_uuids):
        problems.append("its record names a GPU that the attempt did not have")
    return problems


def _split_problems(line: BillLine, *, fee_micro: int) -> list[str]:
    """The platform's share of all that the attempt was charged is rounded down, like the charge itself."""
    if line.fee_micro + line.earning_micro != line.charge_micro:
        return [
            f"fee {line.fee_micro} and earning {line.earning_micro} are not the charge {line.charge_micro}"
        ]
    if line.fee_micro != fee_micro:
        return [f"the fee is {fee_micro}, the line says {line.fee_micro}"]
    return []
