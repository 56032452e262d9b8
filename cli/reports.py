"""Statements, costs and earnings: added up, as tables and as CSV. Pure.

Days and months are those of UTC, for all who read the same books.
"""

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import assert_never

from cli.books import AttemptEarning, CostsBy, EarningsBy, JobCost, Movement, Period, Statement
from cli.model import Cause
from cli.parse import MONTH
from cli.render import Part, amount, duration, in_credits, safe, table
from cli.screens import facts, moment

_NOTHING = "-"


def month_period(month: str, now_ms: int) -> Period:
    """A month that `parse_month` has let through."""
    found = MONTH.fullmatch(month)
    if found:
        year, number = int(found.group(1)), int(found.group(2))
    else:
        now = datetime.fromtimestamp(now_ms // 1_000, UTC)
        year, number = now.year, now.month
        if month == "last":
            year, number = (year - 1, 12) if number == 1 else (year, number - 1)
    return Period(since_ms=_first_ms(year, number), until_ms=_first_ms(year + number // 12, number % 12 + 1))


def _first_ms(year: int, month: int) -> int:
    # The last month that a date can name has no next one; zero stands for no end.
    return 0 if year > 9_999 else int(datetime(max(year, 1970), month, 1, tzinfo=UTC).timestamp()) * 1_000


def day(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms // 1_000, UTC).strftime("%Y-%m-%d")


def month(at_ms: int) -> str:
    return day(at_ms)[:7]


def csv_lines(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(headings)
    writer.writerows(rows)
    # Only where the writer ended one: a cell may hold what others take for the end of a line.
    return out.getvalue().removesuffix("\n").split("\n")


# Statements.


def statement_screen(statement: Statement) -> list[Part]:
    rows = [
        (
            moment(movement.posted_at_ms),
            safe(movement.kind),
            amount(movement.delta_micro),
            amount(movement.balance_micro),
            movement.job_id or _NOTHING,
            safe(movement.reason) or _NOTHING,
        )
        for movement in statement.movements
    ]
    return [
        *facts([("opening", in_credits(statement.opening_micro))]),
        *(table(("WHEN", "KIND", "CREDITS", "BALANCE", "JOB", "REASON"), rows) if rows else ["no movements"]),
        *facts([("closing", in_credits(statement.closing_micro))]),
    ]


def statement_csv(movements: Sequence[Movement]) -> list[str]:
    headings = ("posted_at", "transfer_id", "kind", "credits", "balance", "job_id", "reason")
    return csv_lines(
        headings,
        (
            (
                datetime.fromtimestamp(movement.posted_at_ms / 1_000, UTC).isoformat(timespec="milliseconds"),
                movement.transfer_id,
                safe(movement.kind),
                amount(movement.delta_micro),
                amount(movement.balance_micro),
                movement.job_id,
                safe(movement.reason),
            )
            for movement in movements
        ),
    )


# Costs.


@dataclass(frozen=True, kw_only=True)
class CostRow:
    """What a group of jobs has cost: `cost_micro` is what was charged less what came back."""

    key: str
    jobs: int = 0
    billed_ms: int = 0
    charged_micro: int = 0
    back_micro: int = 0
    cost_micro: int = 0
    held_micro: int = 0

    def plus(self, job: JobCost) -> "CostRow":
        return replace(
            self,
            jobs=self.jobs + 1,
            billed_ms=self.billed_ms + job.billed_ms,
            charged_micro=self.charged_micro + job.charged_micro,
            back_micro=self.back_micro + job.back_micro,
            cost_micro=self.cost_micro + job.charged_micro - job.back_micro,
            held_micro=self.held_micro + job.held_micro,
        )


@dataclass(frozen=True, kw_only=True)
class Costs:
    """The total counts each job once, also one that several labels have in their groups."""

    rows: tuple[CostRow, ...]
    total: CostRow


def add_costs(jobs: Iterable[JobCost], by: CostsBy, label: str = "") -> Costs:
    """`label` names the one whose values make the groups; without it each NAME=VALUE is one."""
    groups: dict[str, CostRow] = {}
    total = CostRow(key="total")
    for job in jobs:
        total = total.plus(job)
        for key in _cost_keys(job, by, label):
            groups[key] = groups.get(key, CostRow(key=key)).plus(job)
    rows = list(groups.values())
    match by:
        case CostsBy.JOB:
            pass  # newest first, as they came
        case CostsBy.LABEL:
            rows.sort(key=lambda row: (-row.cost_micro, row.key))
        case CostsBy.DAY | CostsBy.MONTH:
            rows.sort(key=lambda row: row.key)
        case _ as never:
            assert_never(never)
    return Costs(rows=tuple(rows), total=total)


def _cost_keys(job: JobCost, by: CostsBy, label: str) -> list[str]:
    match by:
        case CostsBy.JOB:
            return [job.job_id]
        case CostsBy.LABEL if label:
            return [dict(job.labels).get(label, _NOTHING)]
        case CostsBy.LABEL:
            return [f"{name}={value}" for name, value in job.labels] or [_NOTHING]
        case CostsBy.DAY:
            return [day(job.submitted_at_ms)]
        case CostsBy.MONTH:
            return [month(job.submitted_at_ms)]
        case _ as never:
            assert_never(never)


def costs_screen(costs: Costs, heading: str) -> list[Part]:
    headings = (heading, "JOBS", "RUN TIME", "CHARGED", "GIVEN BACK", "COST (CREDITS)", "STILL HELD")
    rows = [_cost_cells(row, duration) for row in (*costs.rows, costs.total)]
    return table(headings, rows)


def costs_csv(costs: Costs, heading: str) -> list[str]:
    headings = (heading, "jobs", "billed_ms", "charged", "given_back", "cost", "still_held")
    return csv_lines(headings, (_cost_cells(row, str) for row in costs.rows))


def _cost_cells(row: CostRow, time: Callable[[int], str]) -> tuple[str, ...]:
    credits_ = (row.charged_micro, row.back_micro, row.cost_micro, row.held_micro)
    return (safe(row.key), str(row.jobs), time(row.billed_ms), *map(amount, credits_))


# Earnings.


@dataclass(frozen=True, kw_only=True)
class EarningRow:
    """What a group of attempts has earned: charged less fee less what was returned."""

    key: str
    attempts: int = 0
    # Of these, how many the host itself brought to an end.
    failed: int = 0
    billed_ms: int = 0
    charged_micro: int = 0
    fee_micro: int = 0
    returned_micro: int = 0
    earned_micro: int = 0

    def plus(self, attempt: AttemptEarning) -> "EarningRow":
        return replace(
            self,
            attempts=self.attempts + 1,
            failed=self.failed + (attempt.cause is Cause.HOST),
            billed_ms=self.billed_ms + attempt.billed_ms,
            charged_micro=self.charged_micro + attempt.charged_micro,
            fee_micro=self.fee_micro + attempt.fee_micro,
            returned_micro=self.returned_micro + attempt.returned_micro,
            earned_micro=self.earned_micro
            + attempt.charged_micro
            - attempt.fee_micro
            - attempt.returned_micro,
        )


@dataclass(frozen=True, kw_only=True)
class Earnings:
    rows: tuple[EarningRow, ...]
    total: EarningRow


def add_earnings(attempts: Iterable[AttemptEarning], by: EarningsBy) -> Earnings:
    groups: dict[str, EarningRow] = {}
    total = EarningRow(key="total")
    for attempt in attempts:
        key = _earning_key(attempt, by)
        total = total.plus(attempt)
        groups[key] = groups.get(key, EarningRow(key=key)).plus(attempt)
    rows = list(groups.values())
    if by is not EarningsBy.ATTEMPT:
        rows.sort(key=lambda row: row.key)
    return Earnings(rows=tuple(rows), total=total)


def _earning_key(attempt: AttemptEarning, by: EarningsBy) -> str:
    match by:
        case EarningsBy.ATTEMPT:
            return attempt.attempt_id
        case EarningsBy.HOST:
            return attempt.host_id
        case EarningsBy.GPU:
            return attempt.gpu_model
        case EarningsBy.DAY:
            return day(attempt.assigned_at_ms)
        case EarningsBy.MONTH:
            return month(attempt.assigned_at_ms)
        case _ as never:
            assert_never(never)


def earnings_screen(earnings: Earnings, heading: str) -> list[Part]:
    headings = (
        heading,
        "ATTEMPTS",
        "FAILED BY HOST",
        "RUN TIME",
        "CHARGED",
        "FEE",
        "RETURNED",
        "EARNED (CREDITS)",
    )
    return table(headings, [_earning_cells(row, duration) for row in (*earnings.rows, earnings.total)])


def earnings_csv(earnings: Earnings, heading: str) -> list[str]:
    headings = (heading, "attempts", "failed_by_host", "billed_ms", "charged", "fee", "returned", "earned")
    return csv_lines(headings, (_earning_cells(row, str) for row in earnings.rows))


def _earning_cells(row: EarningRow, time: Callable[[int], str]) -> tuple[str, ...]:
    credits_ = (row.charged_micro, row.fee_micro, row.returned_micro, row.earned_micro)
    return (
        safe(row.key),
        str(row.attempts),
        str(row.failed),
        time(row.billed_ms),
        *map(amount, credits_),
    )
