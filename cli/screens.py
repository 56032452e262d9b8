"""Whole screens and sentences about offers, quotes, jobs and bills. Pure."""

from collections.abc import Sequence
from datetime import UTC, datetime

from cli.model import (
    Attempt,
    Bill,
    BillLine,
    Cause,
    Event,
    EventKind,
    Isolation,
    Job,
    JobSpec,
    JobState,
    LimitCount,
    Offer,
    Quote,
)
from cli.people import Host
from cli.render import (
    INDENT,
    Part,
    amount,
    duration,
    gpu_name,
    gpu_names,
    in_credits,
    limit_lines,
    offer_text,
    percent,
    plural,
    safe,
    size,
    table,
    words,
)
from cli.verify import Verdict
from cli.wishes import Network, OnHostLoss


def moment(at_ms: int) -> str:
    """In the reader's own zone, which it names."""
    if at_ms == 0:
        return "-"
    return datetime.fromtimestamp(at_ms // 1_000, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")


def facts(pairs: Sequence[tuple[str, str]]) -> list[str]:
    return [f"{name:{INDENT}}{value}" for name, value in pairs]


def offers_screen(offers: Sequence[Offer]) -> list[Part]:
    if not offers:
        return ["no offer fits"]
    rows = [
        (
            offer.host_id,
            f"{offer.gpu_count_free} x {gpu_name(offer.gpu_model, simulated=offer.simulated)}",
            size(offer.vram_bytes),
            amount(offer.gpu_hour_price_micro),
            percent(offer.reliability_ppm),
            words(offer.isolation),
            _network(offer),
            _line(offer),
            moment(offer.closes_at_ms),
            safe(offer.region) or "-",
            safe(offer.executor),
        )
        for offer in offers
    ]
    headings = ("HOST", "FREE", "MEMORY", "CREDITS/GPU-HOUR", "RELIABLE", "ISOLATION")
    return table((*headings, "NETWORK", "LINE", "CLOSES", "REGION", "EXECUTOR"), rows)


def _network(offer: Offer) -> str:
    if offer.isolation is Isolation.PROCESS:
        return "the host's"
    count = len(offer.network_destinations)
    return plural(count, "place") if count else words(offer.network_max)


def _line(offer: Offer) -> str:
    """To the host and from it, in whole megabits a second, and whose word it is."""
    if offer.download_bps is None and offer.upload_bps is None:
        return "-"
    down, up = (
        "?" if bps is None else str(bps // 1_000_000) for bps in (offer.download_bps, offer.upload_bps)
    )
    return f"{down}/{up} Mb/s {'measured' if offer.network_measured else 'as the seller says'}"


def quote_screen(spec: JobSpec, quote: Quote) -> list[str]:
    """What the buyer is about to agree to."""
    gpus = spec.gpus
    wanted = f"{gpus.count} x {safe(gpus.model) or 'any GPU'}" + (
        f" with at least {size(gpus.vram_bytes_min)}" if gpus.vram_bytes_min else ""
    )
    pairs = [("wanted", f"{wanted}, {words(spec.isolation_min)} or stronger")]
    if quote.offer is None:
        pairs.append(("offer", "none fits now; the job would wait in the queue"))
    else:
        pairs += [
            ("offer", offer_text(quote.offer)),
            ("rate", f"{in_credits(quote.hour_price_micro)} an hour for {plural(gpus.count, 'GPU')}"),
        ]
    pairs.append(("hold", f"{in_credits(quote.hold_micro)}, the most it can cost; what is left comes back"))
    if quote.offer is not None:
        pairs.append(("lasts", f"{duration(quote.run_ms_affordable)}, then budget or time limit end it"))
    pairs += [
        ("network", _reach(spec)),
        ("time limit", duration(spec.time_limit_ms)),
        ("fee", f"{percent(quote.fee_ppm)} of each charge is the platform's; you pay nothing on top"),
        ("lost host", _lost_host(spec)),
        ("considered", plural(quote.hosts_considered, "host")),
    ]
    if quote.offer is not None and quote.offer.isolation is Isolation.PROCESS:
        pairs.append(
            ("warning", "no isolation on this host: the job runs as a plain process of the seller's")
        )
    return facts(pairs) + [" " * INDENT + line for line in why_lines(quote.limits, quote.cheapest_change)]


def _reach(spec: JobSpec) -> str:
    if spec.isolation_min is Isolation.PROCESS:
        return "the host's own, where there is no isolation"
    if spec.network_destinations:
        return f"{safe(', '.join(spec.network_destinations))}, and nothing else"
    return "the public internet" if spec.network is Network.INTERNET else "none"


def why_lines(limits: Sequence[LimitCount], cheapest_change: str) -> list[str]:
    """What keeps hosts away, and what would help."""
    helps = [f"what would help: {safe(cheapest_change)}"] if cheapest_change else []
    return [*limit_lines(limits), *helps]


def queue_lines(job: Job) -> list[str]:
    """Where a waiting job stands and what keeps it there."""
    place = f"place {job.queue_place} in the queue" if job.queue_place else "far back in the queue"
    return [f"waits, {place}", *why_lines(job.limits, job.cheapest_change)]


BEFORE_RUN = frozenset({JobState.QUEUED, JobState.STARTING})


def before_run_lines(job: Job) -> list[str]:
    """What a job waits for: in the queue, or on its host, which tells how far it has fetched the image."""
    if job.state is JobState.QUEUED:
        return queue_lines(job)
    detail = job.attempts[-1].detail if job.attempts else ""
    return [f"the host: {safe(detail)}"] if detail else []


def why_screen(job: Job) -> list[str]:
    """Why it waits, or why it ended so and what that means for the bill."""
    lines = facts([("job", job.job_id), ("state", words(job.state)), ("detail", safe(job.detail) or "-")])
    if job.state is JobState.QUEUED:
        return [*lines, *queue_lines(job)]
    if job.ended:
        lines += facts([("cause", f"{words(job.cause)}: {_PAYS[job.cause]}")])
    return lines


_PAYS = {
    Cause.BUYER: "what ran was paid for, the rest of the budget came back",
    Cause.HOST: "the time that the host's fault made worthless was given back; see the bill",
    Cause.PLATFORM: "only witnessed run time was paid for",
    Cause.UNKNOWN: "only witnessed run time was paid for",
    Cause.UNSPECIFIED: "see the bill",
}


def _lost_host(spec: JobSpec) -> str:
    retries = spec.retries_max
    anew = f"placed anew, up to {plural(retries, 'time')}" if retries else "ended as failed"
    match spec.on_host_loss:
        case OnHostLoss.FAIL:
            then = "waited for while it may come back, then the job is ended as failed"
        case OnHostLoss.REPLACE if retries:
            then = f"not waited for: the job is {anew}"
        case _:
            then = f"waited for while it may come back, then the job is {anew}"
    return f"{then}; only witnessed run time is paid"


def event_text(event: Event) -> str:
    at = datetime.fromtimestamp(event.happened_at_ms // 1_000, UTC).astimezone().strftime("%H:%M:%S")
    if event.bill_line is not None:
        return f"{at} billed: {bill_line_text(event.bill_line)}"
    return f"{at} {words(event.kind)}: {safe(event.text)}"


def bill_line_text(line: BillLine) -> str:
    record = line.record
    return (
        f"record {record.number}, {record.start_ms} to {record.end_ms} ms, "
        f"paid to {line.billed_through_ms} ms: "
        f"{in_credits(line.charge_micro)} = seller {amount(line.earning_micro)} + "
        f"fee {amount(line.fee_micro)}, "
        f"evidence {record.digest.hex()[:12]}"
    )


def is_progress(event: Event, *, verbose: bool) -> bool:
    """Is the event worth a line while the job's own output is on the screen?"""
    return verbose or event.kind not in {EventKind.BILLED, EventKind.ENDED}


def end_line(job: Job) -> str:
    """State, cause, duration, cost, and the next command."""
    cause = "" if job.state is JobState.SUCCEEDED else f" ({words(job.cause)}: {safe(job.detail)})"
    code = "" if job.exit_code is None else f"exit code {job.exit_code}"
    told = f", {code}" if code and code not in cause else ""
    billed_ms = sum(attempt.billed_ms for attempt in job.attempts)
    return (
        f"{job.job_id} {words(job.state)}{cause}{told}, {duration(billed_ms)} billed, "
        f"cost {in_credits(job.charged_micro)}; see: usance bill {job.job_id}"
    )


def jobs_screen(jobs: Sequence[Job]) -> list[Part]:
    if not jobs:
        return ["no jobs"]
    rows = [
        (
            job.job_id,
            safe(job.spec.name),
            words(job.state),
            moment(job.submitted_at_ms),
            amount(job.charged_micro),
            amount(job.spec.budget_micro),
        )
        for job in jobs
    ]
    return table(("JOB", "NAME", "STATE", "SUBMITTED", "COST (CREDITS)", "BUDGET (CREDITS)"), rows)


def job_screen(job: Job) -> list[str]:
    spec = job.spec
    lines = facts(
        [
            ("job", job.job_id),
            ("name", safe(spec.name)),
            ("state", words(job.state) + ("" if not job.ended else f", cause {words(job.cause)}")),
            ("detail", safe(job.detail) or "-"),
            ("command", safe(" ".join(spec.command))),
            ("image", safe(spec.image) or "-"),
            ("submitted", moment(job.submitted_at_ms)),
            ("ended", moment(job.ended_at_ms)),
            ("exit code", "-" if job.exit_code is None else str(job.exit_code)),
            ("cost", f"{in_credits(job.charged_micro)} of at most {in_credits(spec.budget_micro)}"),
        ]
    )
    if job.queue_place:
        lines += facts([("queue", f"place {job.queue_place}")])
    lines += [" " * INDENT + line for line in why_lines(job.limits, job.cheapest_change)]
    for attempt in job.attempts:
        lines += ["", *_attempt_lines(attempt)]
    return lines


def timeline_screen(events: Sequence[Event]) -> list[str]:
    """What has happened, without the single records of the bill."""
    told = [event for event in events if event.kind is not EventKind.BILLED]
    billed = len(events) - len(told)
    lines = [f"{moment(event.happened_at_ms)}  {words(event.kind)}: {safe(event.text)}" for event in told]
    return lines + ([f"and {plural(billed, 'record')} billed; see: usance bill"] if billed else [])


def _attempt_lines(attempt: Attempt) -> list[str]:
    ended = "" if attempt.end_reason.value == "UNSPECIFIED" else f", {words(attempt.end_reason)}"
    return facts(
        [
            ("attempt", f"{attempt.attempt_id} (epoch {attempt.epoch})"),
            ("state", f"{words(attempt.state)}{ended}"),
            ("host", f"{attempt.host_id}, {gpu_names(attempt.gpus)}, {words(attempt.isolation)}"),
            ("rate", f"{in_credits(attempt.hour_price_micro)} an hour"),
            (
                "run time",
                f"{duration(attempt.billed_ms)} billed, {duration(attempt.unbilled_ms)} reported, not billed",
            ),
            ("cost", in_credits(attempt.charged_micro)),
            ("detail", safe(attempt.detail) or "-"),
        ]
    )


def bill_screen(bill: Bill, verdict: Verdict | None) -> list[Part]:
    lines: list[Part] = [
        *facts(
            [
                ("job", bill.job_id),
                ("bill", "final" if bill.final else "so far; the job goes on"),
                ("held", in_credits(bill.held_micro)),
                ("charged", in_credits(bill.charged_micro)),
                ("given back", in_credits(bill.released_micro)),
                *(
                    [("credited", f"{in_credits(bill.credited_micro)}, because a host was at fault")]
                    if bill.credited_micro
                    else []
                ),
                *(
                    ("refunded", f"{in_credits(each.amount_micro)} by the operator: {safe(each.reason)}")
                    for each in bill.refunds
                ),
            ]
        )
    ]
    for attempt in bill.attempts:
        lines += [
            "",
            *facts(
                [
                    ("attempt", f"{attempt.attempt_id} (epoch {attempt.epoch}) on {attempt.host_id}"),
                    (
                        "rate",
                        f"{in_credits(attempt.hour_price_micro)} an hour, fee {percent(attempt.fee_ppm)}",
                    ),
                    ("GPUs", safe(", ".join(attempt.gpu_uuids)) or "-"),
                ]
            ),
            *_bill_table(attempt.lines),
            *(
                f"credited of line {credit.number}: {amount(credit.earning_micro + credit.fee_micro)} "
                f"({safe(credit.reason)})"
                for credit in attempt.credits
            ),
        ]
    if verdict is not None:
        lines += ["", *verdict_lines(verdict)]
    return lines


def _bill_table(lines: Sequence[BillLine]) -> list[Part]:
    rows = [
        (
            str(line.record.number),
            str(line.record.start_ms),
            str(line.record.end_ms),
            str(line.witnessed_ms),
            str(line.billed_through_ms),
            amount(line.charge_micro),
            amount(line.earning_micro),
            amount(line.fee_micro),
            line.record.digest.hex()[:16],
        )
        for line in lines
    ]
    headings = ("#", "FROM ms", "TO ms", "WITNESSED", "PAID TO", "CREDITS", "= SELLER", "+ FEE", "EVIDENCE")
    return table(headings, rows) if rows else ["nothing was billed"]


def verdict_lines(verdict: Verdict) -> list[str]:
    if verdict.problems:
        return [f"WRONG: {safe(problem)}" for problem in verdict.problems]
    return [
        f"verified: {plural(verdict.lines_checked, 'line')} computed again from the evidence, digests, "
        f"times, charges, fees and the sum of {in_credits(verdict.charged_micro)} are right"
    ]


def hosts_screen(hosts: Sequence[Host]) -> list[Part]:
    if not hosts:
        return ["no hosts; make a token with: usance enroll-token"]
    rows = [
        (
            host.host_id,
            safe(host.hostname),
            words(host.state),
            moment(host.since_at_ms),
            "; ".join(
                f"{offer.gpu_count_free} x {gpu_name(offer.gpu_model, simulated=offer.simulated)} "
                f"at {amount(offer.gpu_hour_price_micro)}"
                for offer in host.offers
            )
            or "-",
            safe(host.reason) or "-",
        )
        for host in hosts
    ]
    notices = [f"{host.host_id}: {safe(notice)}" for host in hosts for notice in host.notices]
    return [*table(("HOST", "NAME", "STATE", "SINCE", "FREE, CREDITS/GPU-HOUR", "REASON"), rows), *notices]
