"""A scripted job for the fake market: its events, output and bill, all consistent with one another."""

import hashlib
from dataclasses import dataclass, field

from runtime.evidence import chain_start, make_record
from usance.v1 import market_pb2 as pb
from usance.v1 import types_pb2

HOST_ID = "host_1"
HOUR_PRICE_MICRO = 3_600_000_000
FEE_PPM = 100_000
STORED_AT_MS = 1_700_000_000_000


@dataclass(kw_only=True)
class Script:
    """What becomes of the next job: its output as (stream, bytes), and how it ends."""

    output: list[tuple[str, bytes]] = field(default_factory=list)
    exit_code: int | None = 0
    state: str = "SUCCEEDED"
    cause: str = "BUYER"
    end_reason: str = "EXITED"
    detail: str = "the command ended"
    billed_ms: tuple[int, ...] = (1_000, 1_500)
    complete: bool = True
    # False: it runs until it is cancelled.
    ends: bool = True
    # It waits in the queue until it is cancelled.
    waits: bool = False
    # How it goes while it runs.
    figures: types_pb2.JobFigures | None = None
    # All that it cost was given back.
    credited: bool = False


class FakeJob:
    def __init__(self, number: int, spec: types_pb2.JobSpec, script: Script) -> None:
        self.id = f"job_{number:026}"
        self.attempt_id = f"att_{number:026}"
        self.spec = spec
        self.script = script
        self.cancelled = False

    @property
    def ended(self) -> bool:
        return (self.script.ends and not self.script.waits) or self.cancelled

    def message(self) -> pb.Job:
        if self.script.waits and not self.cancelled:
            return pb.Job(
                job_id=self.id,
                spec=self.spec,
                state=types_pb2.JOB_STATE_QUEUED,
                detail="waits for a host",
                limits=[pb.LimitCount(limit="GPU memory", host_count=2, remedy="at most 24 GiB")],
                queue_place=3,
                cheapest_change="ask for 24 GiB of GPU memory",
            )
        return self._begun()

    def _begun(self) -> pb.Job:
        script = self.script
        state = "RUNNING" if not self.ended else "CANCELLED" if self.cancelled else script.state
        attempt = pb.Attempt(
            attempt_id=self.attempt_id,
            epoch=1,
            host_id=HOST_ID,
            gpus=[types_pb2.Gpu(uuid="SIMULATED-1", model="RTX 4090", vram_bytes=24 * 10**9, simulated=True)],
            state=types_pb2.ATTEMPT_STATE_ENDED if self.ended else types_pb2.ATTEMPT_STATE_RUNNING,
            end_reason=types_pb2.EndReason.Value(
                f"END_REASON_{script.end_reason if self.ended else 'UNSPECIFIED'}"
            ),
            hour_price_micro=HOUR_PRICE_MICRO,
            billed_ms=script.billed_ms[-1],
            charged_micro=self.bill().charged_micro,
            detail=script.detail,
            figures=None if self.ended else script.figures,
        )
        return pb.Job(
            job_id=self.id,
            spec=self.spec,
            state=types_pb2.JobState.Value(f"JOB_STATE_{state}"),
            cause=types_pb2.Cause.Value(f"CAUSE_{script.cause}"),
            detail=script.detail,
            submitted_at_ms=1_700_000_000_000,
            charged_micro=self.bill().charged_micro,
            attempts=[attempt],
            exit_code=script.exit_code if self.ended else None,
        )

    def bill(self) -> pb.Bill:
        lines, digest, start_ms, charged = [], chain_start(self.attempt_id, 1), 0, 0
        for number, end_ms in enumerate(self.script.billed_ms, start=1):
            record = make_record(digest, number, start_ms, end_ms, ())
            charge = HOUR_PRICE_MICRO * end_ms // 3_600_000 - charged
            fee = (charged + charge) * FEE_PPM // 1_000_000 - charged * FEE_PPM // 1_000_000
            lines.append(
                pb.BillLine(
                    attempt_id=self.attempt_id,
                    record=types_pb2.UsageRecord(
                        number=number,
                        start_ms=start_ms,
                        end_ms=end_ms,
                        previous_digest=record.previous_digest,
                        digest=record.digest,
                    ),
                    witnessed_ms=end_ms + 5,
                    billed_through_ms=end_ms,
                    charge_micro=charge,
                    fee_micro=fee,
                    earning_micro=charge - fee,
                )
            )
            digest, start_ms, charged = record.digest, end_ms, charged + charge
        attempt = pb.BillAttempt(
            attempt_id=self.attempt_id,
            epoch=1,
            host_id=HOST_ID,
            gpu_uuids=["SIMULATED-1"],
            hour_price_micro=HOUR_PRICE_MICRO,
            fee_ppm=FEE_PPM,
            run_ms_affordable=self.spec.budget_micro * 3_600_000 // HOUR_PRICE_MICRO,
            run_ms_max=self.spec.run_ms_max or 86_400_000,
            lines=lines,
            credits=[
                pb.BillCredit(
                    number=number,
                    earning_micro=line.earning_micro,
                    fee_micro=line.fee_micro,
                    reason="the host was lost",
                )
                for number, line in enumerate(lines, start=1)
                if self.script.credited
            ],
        )
        held = self.spec.budget_micro
        return pb.Bill(
            job_id=self.id,
            final=self.ended,
            held_micro=held,
            charged_micro=charged,
            released_micro=held - charged if self.ended else 0,
            attempts=[attempt],
            credited_micro=charged if self.script.credited else 0,
        )

    def pieces(self) -> list[pb.AttemptLog]:
        offset, pieces = 0, []
        for stream, data in self.script.output:
            chunk = types_pb2.LogChunk(
                offset=offset, stream=types_pb2.LogStream.Value(f"LOG_STREAM_{stream}"), data=data
            )
            pieces.append(pb.AttemptLog(attempt_id=self.attempt_id, chunk=chunk, stored_at_ms=STORED_AT_MS))
            offset += len(data)
        return pieces

    def log_end(self) -> pb.LogEnd:
        whole = {
            name: b"".join(data for stream, data in self.script.output if stream == name)
            for name in ("STDOUT", "STDERR")
        }
        totals = types_pb2.LogTotals(
            stdout_bytes=len(whole["STDOUT"]),
            stderr_bytes=len(whole["STDERR"]),
            stdout_sha256=hashlib.sha256(whole["STDOUT"]).digest(),
            stderr_sha256=hashlib.sha256(whole["STDERR"]).digest(),
        )
        return pb.LogEnd(attempt_id=self.attempt_id, complete=self.script.complete, totals=totals)

    def events(self) -> list[pb.Event]:
        told = [("SUBMITTED", "taken in", "QUEUED"), ("STARTED", "its command runs", "RUNNING")]
        events = [
            pb.Event(
                number=10 * number,
                kind=pb.EventKind.Value(f"EVENT_KIND_{kind}"),
                text=text,
                job_state=types_pb2.JobState.Value(f"JOB_STATE_{state}"),
                happened_at_ms=1_700_000_000_000,
                attempt_id=self.attempt_id,
            )
            for number, (kind, text, state) in enumerate(told, start=1)
        ]
        if self.script.waits:
            return events[:1]
        events += [
            pb.Event(number=30 + number, kind=pb.EVENT_KIND_BILLED, text="billed", bill_line=line)
            for number, line in enumerate(self.bill().attempts[0].lines)
        ]
        return events

    def last_event(self) -> pb.Event:
        return pb.Event(number=90, kind=pb.EVENT_KIND_ENDED, text="over", job_state=self.message().state)
