"""The ledger and the bills for other programs. Bills are computed as they were charged, archived or not."""

import csv
import datetime as dt
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import Connection

from coordinator.domain.job import Attempt, Job
from coordinator.domain.pricing import charge_between
from coordinator.store.ports import Transaction
from coordinator.store.transaction import SqlTransaction
from ledger import chart
from ledger import export as ledger_export
from ledger.money import format_credits

JOBS_A_LOOK = 500
FORMATS = ("csv", "json", "beancount", "hledger")
_FIELDS = (
    "job", "buyer", "attempt", "epoch", "seller", "host", "submitted", "ended", "end_reason", "billed_ms",
    "charged", "earned", "fee", "given_back",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Bill:
    """What an attempt of a job has cost, what of that its seller and the platform got, and what went back."""

    job: Job
    attempt: Attempt
    charged_micro: int
    earned_micro: int
    fee_micro: int
    back_earned_micro: int
    back_fee_micro: int

    @property
    def back_micro(self) -> int:
        return self.back_earned_micro + self.back_fee_micro


def ledger_lines(connection: Connection, form: str) -> Iterator[str]:
    posted = ledger_export.transfers(connection)
    match form:
        case "csv":
            return ledger_export.csv_lines(posted)
        case "json":
            return ledger_export.json_lines(posted)
        case "beancount":
            return ledger_export.beancount_lines(posted)
        case _:
            return ledger_export.hledger_lines(posted)


def bill_lines(connection: Connection, form: str) -> Iterator[str]:
    found = bills(SqlTransaction(connection))
    match form:
        case "csv":
            return _csv(found)
        case "json":
            return (json.dumps(_row(one)) + "\n" for one in found)
        case _:
            return _journal(found, is_beancount=form == "beancount")


def bills(tx: Transaction) -> Iterator[Bill]:
    """Of every attempt that was charged for, job by job."""
    after = ""
    while jobs := tx.jobs_after(after, JOBS_A_LOOK):
        after = jobs[-1].id
        of_jobs = tx.attempts_of_jobs([job.id for job in jobs])
        for job in jobs:
            attempts = [attempt for attempt in of_jobs[job.id] if attempt.meter.billed_ms]
            back = tx.credits_of([attempt.id for attempt in attempts])
            for attempt in attempts:
                meter, given = attempt.meter, [credit for credit, _, _ in back[attempt.id]]
                charge = charge_between(meter.hour_price_micro, meter.fee_ppm, 0, meter.billed_ms)
                yield Bill(
                    job=job,
                    attempt=attempt,
                    charged_micro=charge.charge_micro,
                    earned_micro=charge.earning_micro,
                    fee_micro=charge.fee_micro,
                    back_earned_micro=sum(one.earning_micro for one in given),
                    back_fee_micro=sum(one.fee_micro for one in given),
                )


def _row(one: Bill) -> dict[str, str]:
    job, attempt = one.job, one.attempt
    values = (
        job.id, job.account_id, attempt.id, str(attempt.epoch), attempt.seller_account_id, attempt.host_id,
        _moment(job.submitted_ms), _moment(job.ended_ms) if job.is_over else "",
        str(attempt.end_reason or ""), str(attempt.meter.billed_ms), format_credits(one.charged_micro),
        format_credits(one.earned_micro), format_credits(one.fee_micro), format_credits(one.back_micro),
    )  # fmt: skip
    return dict(zip(_FIELDS, values, strict=True))


def _csv(found: Iterator[Bill]) -> Iterator[str]:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, _FIELDS, lineterminator="\n")
    writer.writeheader()
    for one in found:
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()
        writer.writerow(_row(one))
    yield buffer.getvalue()


def _journal(found: Iterator[Bill], *, is_beancount: bool) -> Iterator[str]:
    """What buyers spent on jobs, as seen by the platform that keeps their credits."""
    opened = set[str]()
    for one in found:
        day = _moment(one.job.ended_ms if one.job.is_over else one.job.submitted_ms)[:10]
        legs = [
            (chart.wallet(one.job.account_id), one.charged_micro - one.back_micro),
            (chart.earnings(one.attempt.seller_account_id), one.back_earned_micro - one.earned_micro),
            (chart.FEE, one.back_fee_micro - one.fee_micro),
        ]
        named = [(ledger_export.account_name(code), micro) for code, micro in legs]
        if is_beancount:
            for name, _ in named:
                if name not in opened:
                    opened.add(name)
                    # Before anything that happened: jobs are not in the order of their ends.
                    yield f"1970-01-01 open {name} CREDIT\n"
            yield f'{day} * "{one.job.id}" "{one.attempt.id}"\n'
        else:
            yield f"{day} {one.job.id} ; attempt:{one.attempt.id}\n"
        for name, micro in named:
            yield f"    {name}  {format_credits(micro)} CREDIT\n"
        yield "\n"


def _moment(time_ms: int) -> str:
    return dt.datetime.fromtimestamp(time_ms / 1_000, dt.UTC).isoformat(timespec="milliseconds")
