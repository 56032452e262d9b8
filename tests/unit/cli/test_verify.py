"""A bill is computed again from its evidence; whatever is changed in it is found."""

from dataclasses import replace

import pytest

from cli.model import Bill, BillAttempt, BillCredit, BillLine, BillRefund, EndReason
from cli.verify import CREDITED, MS_PER_HOUR, verify_bill
from coordinator.domain import states
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
        run_ms_max=DAY_MS,
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
    verdict = verify_bill(_bill())
    assert verdict.problems == ()
    assert verdict.lines_checked == 4
    assert verdict.charged_micro == RATE * 14_000 // MS_PER_HOUR


def test_nothing_is_paid_beyond_the_time_limit():
    (attempt,) = _bill().attempts
    short = replace(_bill(), attempts=(replace(attempt, run_ms_max=13_000),))
    assert any("13000 ms are billable" in problem for problem in verify_bill(short).problems)


def test_a_bill_without_a_line_is_right():
    bill = Bill(job_id="j", final=True, held_micro=5, charged_micro=0, released_micro=5, attempts=())
    assert verify_bill(bill).problems == ()


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
    assert any(said in problem for problem in verify_bill(_with_line(_bill(), 2, **changes)).problems)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"charged_micro": 1}, "the lines add up to"),
        ({"released_micro": 1}, "were to be given back"),
        ({"held_micro": 100}, "more than the 100 held"),
    ],
)
def test_a_changed_sum_is_found(changes, said):
    assert any(said in problem for problem in verify_bill(replace(_bill(), **changes)).problems)


def test_a_left_out_line_is_found():
    bill = _bill()
    attempt = bill.attempts[0]
    for kept in (attempt.lines[1:], attempt.lines[:2] + attempt.lines[3:]):
        changed = replace(bill, attempts=(replace(attempt, lines=kept),))
        assert verify_bill(changed).problems


def test_an_attempt_of_another_epoch_has_another_chain():
    bill = _bill()
    changed = replace(bill, attempts=(replace(bill.attempts[0], epoch=4),))
    assert any("does not follow" in problem for problem in verify_bill(changed).problems)


def _credited(credits_: list[tuple[int, int, int]]) -> Bill:
    """The bill, with credits as (line, from the seller, from the platform)."""
    bill = _bill()
    (attempt,) = bill.attempts
    given = tuple(
        BillCredit(number=number, earning_micro=earning, fee_micro=fee, transfer_id="t", reason="lost")
        for number, earning, fee in credits_
    )
    return replace(
        bill,
        attempts=(replace(attempt, credits=given),),
        credited_micro=sum(credit.earning_micro + credit.fee_micro for credit in given),
    )


_WHOLE = [(n, line.earning_micro, line.fee_micro) for n, line in enumerate(_bill().attempts[0].lines, 1)]


def _ended(bill: Bill, reason: EndReason) -> Bill:
    return replace(bill, attempts=tuple(replace(a, end_reason=reason) for a in bill.attempts))


def test_all_of_a_short_attempt_is_credited():
    assert verify_bill(_credited(_WHOLE)).problems == ()
    assert verify_bill(_ended(_credited(_WHOLE), EndReason.GPU_LOST)).problems == ()
    assert verify_bill(_ended(_bill(), EndReason.REPLACED)).problems == ()


def test_what_is_credited_is_what_the_rule_says():
    assert {str(reason) for reason in CREDITED} == {reason.name for reason in states.CREDITED}


def test_the_last_ten_minutes_of_a_long_attempt_are_credited():
    def paid(rate: int, ms: int) -> int:
        return rate * ms // MS_PER_HOUR

    use = GpuUse(gpu_uuid="GPU-1")
    record = make_record(chain_start("att_1", 1), 1, 0, 1_000_000, (use,))
    whole, kept = paid(RATE, 1_000_000), paid(RATE, 400_000)
    fee = whole * FEE_PPM // 1_000_000
    line = BillLine(
        attempt_id="att_1",
        record=record,
        witnessed_ms=1_000_000,
        billed_through_ms=1_000_000,
        charge_micro=whole,
        fee_micro=fee,
        earning_micro=whole - fee,
        transfer_id="t",
    )
    back = BillCredit(number=1, earning_micro=whole - kept, fee_micro=0, transfer_id="t", reason="lost")
    attempt = replace(
        _bill().attempts[0],
        epoch=1,
        lines=(line,),
        credits=(back,),
        run_ms_affordable=1_000_000,
    )
    bill = Bill(
        job_id="j",
        final=True,
        held_micro=whole,
        charged_micro=whole,
        released_micro=0,
        attempts=(attempt,),
        credited_micro=whole - kept,
    )
    assert verify_bill(bill).problems == ()
    less = replace(attempt, credits=(replace(back, earning_micro=whole - kept - 1),))
    wrong = replace(bill, attempts=(less,), credited_micro=whole - kept - 1)
    assert any("were to be credited" in problem for problem in verify_bill(wrong).problems)


@pytest.mark.parametrize(
    ("bill", "said"),
    [
        (_credited(_WHOLE[:-1]), "were to be credited"),
        (_credited([*_WHOLE, (9, 1, 0)]), "were to be credited"),
        (_ended(_bill(), EndReason.HOST_LOST), "were to be credited, 0 were"),
        (_ended(_credited(_WHOLE), EndReason.EXITED), "ended as EXITED, and yet something was credited"),
        (replace(_credited(_WHOLE), credited_micro=0), "the credits add up to"),
        (replace(_bill(), credited_micro=1), "the credits add up to"),
    ],
)
def test_a_wrong_credit_is_found(bill, said):
    assert any(said in problem for problem in verify_bill(bill).problems)


def test_refunds_are_what_the_bill_says_and_no_more_than_the_job_cost():
    bill = _credited([])
    given = BillRefund(transfer_id="t", amount_micro=1, reason="kind", refunded_at_ms=1)
    good = replace(bill, refunds=(given,), refunded_micro=1)
    assert verify_bill(good).problems == verify_bill(bill).problems == ()
    too_much = replace(given, amount_micro=bill.charged_micro + 1)
    for wrong in (
        replace(good, refunded_micro=2),
        replace(bill, refunds=(too_much,), refunded_micro=too_much.amount_micro),
    ):
        assert any("the refunds add up to" in problem for problem in verify_bill(wrong).problems)
