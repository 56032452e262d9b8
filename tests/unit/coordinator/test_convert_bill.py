"""A bill as messages: every line is named, and a page ends where a message is full."""

from dataclasses import replace

from coordinator.api.convert_bill import bill_to
from coordinator.domain.credit import Credit
from coordinator.domain.metering import Line
from coordinator.domain.pricing import Charge
from coordinator.domain.states import JobState
from coordinator.services.reading import BillPart, BillPlace, BillView
from runtime.evidence import GpuUse
from tests.support.values import attempt, job, record


def test_a_bill_names_every_line_and_what_was_given_back() -> None:
    charge = Charge(charge_micro=1_000, fee_micro=50, earning_micro=950)
    line = Line(record=record(None, 1_000), witnessed_ms=2_000, billed_through_ms=1_000, charge=charge)
    ended = job(state=JobState.SUCCEEDED, charged_micro=1_000, ended_ms=5)
    back = Credit(number=1, earning_micro=950, fee_micro=50)
    part = BillPart(attempt=attempt(), lines=[(line, "t")], credits=[(back, "c", "the host was lost")])
    bill, more = bill_to(BillView(job=ended, attempts=[part], credited_micro=1_000, more=False))
    assert more is None
    assert (bill.final, bill.held_micro, bill.charged_micro, bill.released_micro) == (
        True,
        1_000_000,
        1_000,
        999_000,
    )
    (sent,) = bill.attempts[0].lines
    assert (sent.charge_micro, sent.fee_micro, sent.earning_micro, sent.transfer_id) == (1_000, 50, 950, "t")
    (credited,) = bill.attempts[0].credits
    assert (credited.number, credited.earning_micro, credited.fee_micro, credited.transfer_id) == (
        1,
        950,
        50,
        "c",
    )
    assert (credited.reason, bill.credited_micro) == ("the host was lost", 1_000)
    running = replace(ended, state=JobState.RUNNING)
    live, _ = bill_to(BillView(job=running, attempts=[], credited_micro=0, more=False))
    assert (live.final, live.released_micro) == (False, 0)


def test_a_bill_is_cut_where_a_message_is_full() -> None:
    charge = Charge(charge_micro=0, fee_micro=0, earning_micro=0)
    uses = tuple(GpuUse(gpu_uuid=f"GPU-{n}" + "x" * 100) for n in range(64))
    first = record(None, 1_000, gpus=uses)
    line = Line(record=first, witnessed_ms=0, billed_through_ms=0, charge=charge)
    parts = [
        BillPart(attempt=attempt(id=f"att_{epoch}", epoch=epoch), lines=[(line, "")] * 60, credits=[])
        for epoch in (1, 2)
    ]
    view = BillView(job=job(), attempts=parts, credited_micro=0, more=True)
    bill, last = bill_to(view)
    assert last == BillPlace(epoch=2, number=1)
    assert 400_000 < bill.ByteSize() < 600_000
    assert len(bill.attempts[0].lines) == 60
    assert 1 <= len(bill.attempts[1].lines) < 60
    _, last = bill_to(replace(view, attempts=parts[:1]))
    assert last == BillPlace(epoch=1, number=1)
