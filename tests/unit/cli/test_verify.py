"""A bill is computed again from its evidence; whatever is changed in it is found."""

from dataclasses import replace

import pytest

from cli.model import Bill, BillAttempt, BillLine
from cli.verify import MS_PER_HOUR, verify_bill
from runtime.evidence import GpuUse, chain_start, make_record

DAY_MS = 86_400_000
RATE, FEE_PPM, HELD = 1_234_567, 100_000, 5_000


def _bill() -> Bill:
    lines, digest, start_ms, charged = [], chain_start("att_1", 3), 0, 0
    # The third record's time was not all witnessed, and the fourth is past what the budget can pay.
    for number, (end_ms, witnessed_ms, billed_ms) in enumerate(
        [(1_000, 1_100, 1_000), (2_003, 2_050, 2_003), (3_000, 2_500, 2_500), (20_000, 20_000, 14_000)],
        start=1,
    ):
        use = GpuUse(gpu_uuid="GPU-1", utilization_percent=50, memory_used_bytes=7, energy_mj=None)
        record = make_record(digest, number, start_ms, end_ms, (use,))
        charge = RATE * billed_ms // MS_PER_HOUR - charged
        fee = (charged + charge) * FEE_PPM // 1_000_000 - charged * FEE_PPM // 1_000_000
        lines.append(
            BillLine(
                attempt_id="att_1",
                record=record,
                witnessed_ms=witnessed_ms,
                billed_through_ms=billed_ms,
                charge_micro=charge,
                fee_micro=fee,
                earning_micro=charge - fee,
                transfer_id="t",
            )
        )
        digest, start_ms, charged = record.digest, end_ms, charged + charge
    attempt = BillAttempt(
        attempt_id="att_1",
        epoch=3,
        host_id="host_1",
        gpu_uuids=("GPU-1",),
        hour_price_micro=RATE,
        fee_ppm=FEE_PPM,
        run_ms_affordable=14_000,
        lines=tuple(lines),
    )
    return Bill(
        job_id="job_1",
        final=True,
        held_micro=HELD,
        charged_micro=charged,
        released_micro=HELD - charged,
        attempts=(attempt,),
    )


def _with_line(bill: Bill, number: int, **changes: object) -> Bill:
    (attempt,) = bill.attempts
    lines = list(attempt.lines)
    lines[number - 1] = replace(lines[number - 1], **changes)  # type: ignore[arg-type]
    return replace(bill, attempts=(replace(attempt, lines=tuple(lines)),))


def test_a_right_bill_is_right():
    verdict = verify_bill(_bill(), DAY_MS)
    assert verdict.problems == ()
    assert verdict.lines_checked == 4
    assert verdict.charged_micro == RATE * 14_000 // MS_PER_HOUR


def test_nothing_is_paid_beyond_the_time_limit():
    assert any("13000 ms are billable" in problem for problem in verify_bill(_bill(), 13_000).problems)


def test_a_bill_without_a_line_is_right():
    bill = Bill(job_id="j", final=True, held_micro=5, charged_micro=0, released_micro=5, attempts=())
    assert verify_bill(bill, DAY_MS).problems == ()


_LINE = _bill().attempts[0].lines[1]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"charge_micro": _LINE.charge_micro + 1}, "the charge is"),
        ({"fee_micro": _LINE.fee_micro + 1}, "are not the charge"),
        ({"fee_micro": 1 + _LINE.fee_micro, "earning_micro": _LINE.earning_micro - 1}, "the fee is"),
        ({"fee_micro": -1, "earning_micro": _LINE.charge_micro + 1}, "the fee is"),
        ({"witnessed_ms": 1_500}, "ms are billable"),
        ({"billed_through_ms": 2_004}, "ms are billable"),
        ({"attempt_id": "att_2"}, "belongs to att_2"),
        ({"record": replace(_LINE.record, end_ms=2_004)}, "was changed"),
        ({"record": replace(_LINE.record, number=3)}, "has the number 3"),
        ({"record": replace(_LINE.record, previous_digest=b"x" * 32)}, "does not follow"),
        ({"record": replace(_LINE.record, start_ms=900)}, "not on from 1000"),
        (
            {"record": replace(_LINE.record, gpus=(GpuUse(gpu_uuid="GPU-2"),))},
            "GPU that the attempt did not have",
        ),
    ],
)
def test_a_changed_line_is_found(changes, said):
    assert any(said in problem for problem in verify_bill(_with_line(_bill(), 2, **changes), DAY_MS).problems)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"charged_micro": 1}, "the lines add up to"),
        ({"released_micro": 1}, "were to be given back"),
        ({"held_micro": 100}, "more than the 100 held"),
    ],
)
def test_a_changed_sum_is_found(changes, said):
    assert any(said in problem for problem in verify_bill(replace(_bill(), **changes), DAY_MS).problems)


def test_a_left_out_line_is_found():
    bill = _bill()
    attempt = bill.attempts[0]
    for kept in (attempt.lines[1:], attempt.lines[:2] + attempt.lines[3:]):
        changed = replace(bill, attempts=(replace(attempt, lines=kept),))
        assert verify_bill(changed, DAY_MS).problems


def test_an_attempt_of_another_epoch_has_another_chain():
    bill = _bill()
    changed = replace(bill, attempts=(replace(bill.attempts[0], epoch=4),))
    assert any("does not follow" in problem for problem in verify_bill(changed, DAY_MS).problems)
