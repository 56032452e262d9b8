"""A job's bill as messages, in pieces that fit into one."""

from coordinator.api.convert_market import end_reason_to, line_to
from coordinator.api.pages import PAGE_BYTES_MAX, fill
from coordinator.services.reading import BillPart, BillPlace, BillView
from usance.v1 import market_pb2 as m


def bill_to(view: BillView) -> tuple[m.Bill, BillPlace | None]:
    """As many of the lines as fit; and the last of them, if there are more."""
    bill = m.Bill(
        job_id=view.job.id,
        final=view.final,
        held_micro=view.job.spec.budget_micro,
        charged_micro=view.job.charged_micro,
        released_micro=view.released_micro,
        credited_micro=view.credited_micro,
        refunded_micro=sum(refund.amount_micro for refund in view.refunds),
        refunds=[
            m.BillRefund(
                transfer_id=refund.transfer_id,
                amount_micro=refund.amount_micro,
                reason=refund.reason,
                refunded_at_ms=refund.given_ms,
            )
            for refund in view.refunds
        ],
        attempts=[_attempt_to(part) for part in view.attempts],
    )
    last, room_bytes = BillPlace(), PAGE_BYTES_MAX - bill.ByteSize()
    for part, message in zip(view.attempts, bill.attempts, strict=True):
        credited = {
            credit.number: (credit, transfer_id, reason) for credit, transfer_id, reason in part.credits
        }
        lines = fill((line_to(part.attempt.id, *line) for line in part.lines), room_bytes)
        for line in lines:
            message.lines.append(line)
            last = BillPlace(epoch=part.attempt.epoch, number=line.record.number)
            if (found := credited.get(line.record.number)) is not None:
                credit, transfer_id, reason = found
                message.credits.append(
                    m.BillCredit(
                        number=credit.number,
                        earning_micro=credit.earning_micro,
                        fee_micro=credit.fee_micro,
                        transfer_id=transfer_id,
                        reason=reason,
                    )
                )
        room_bytes = PAGE_BYTES_MAX - bill.ByteSize()
        if len(lines) < len(part.lines):
            return bill, last
    return bill, last if view.more else None


def _attempt_to(part: BillPart) -> m.BillAttempt:
    attempt = part.attempt
    return m.BillAttempt(
        attempt_id=attempt.id,
        epoch=attempt.epoch,
        host_id=attempt.host_id,
        gpu_uuids=[gpu.uuid for gpu in attempt.gpus],
        hour_price_micro=attempt.meter.hour_price_micro,
        fee_ppm=attempt.meter.fee_ppm,
        run_ms_affordable=attempt.meter.run_ms_affordable,
        run_ms_max=attempt.meter.run_ms_max,
        end_reason=end_reason_to(attempt.end_reason),
    )
