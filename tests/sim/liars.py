"""Sellers who lie: an honest agent, each of whose messages is rewritten on its way out.

They may hurt themselves. They must not gain: not be paid for more than was witnessed, nor speak for others.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from runtime.evidence import GpuUse, UsageRecord, chain_start, make_record
from tests.sim.faults import Dice, Story
from usance.v1 import host_pb2, types_pb2

if TYPE_CHECKING:
    from tests.sim.host import SimHost

Request = host_pb2.SynchronizeRequest
Tamper = Callable[[Any], list[Any]]
RUNNING = types_pb2.ATTEMPT_STATE_RUNNING
ENDED = types_pb2.ATTEMPT_STATE_ENDED


class Liar:
    """One seller's way of lying; the same all through a run."""

    def __init__(
        self, kind: str, dice: Dice, hosts: dict[str, "SimHost"], own: "SimHost", story: Story
    ) -> None:
        self._kind = kind
        self._dice = dice
        self._hosts = hosts
        self._own = own
        self._story = story
        self._tellers: dict[str, Callable[[Request], list[Request]]] = {
            "doubles its time": self._doubled,
            "leaves records out": self._left_out,
            "gives false digests": self._false_digest,
            "bills a foreign GPU": self._foreign_gpu,
            "changes the container": self._other_container,
            "speaks under other epochs": self._other_epoch,
            "speaks for other hosts": self._for_others,
            "gives impossible figures": self._figures,
            "claims to be alive after the end": self._undead,
            "claims to run before it does": self._early,
            "says nothing of its attempts": self._silent,
            "promises output that never comes": self._endless_output,
            "sends other output": self._other_output,
        }
        # The last record told of each attempt: forged chains go on from it.
        self._told: dict[str, UsageRecord] = {}

    def __call__(self, message: Request) -> list[Request]:
        copy = Request.FromString(message.SerializeToString())
        return self._tellers[self._kind](copy)

    def _lied(self) -> None:
        self._story.fault(f"seller {self._kind}")

    def _doubled(self, message: Request) -> list[Request]:
        for report in message.beat.attempts:
            report.run_ms *= 2
        for usage in _usages(message):
            self._lied()
            self._forge(usage, lambda record: (record.start_ms * 2, record.end_ms * 2))
        return [message]

    def _forge(self, usage: host_pb2.UsageReport, span: Callable[[Any], tuple[int, int]]) -> None:
        """The same records with other times, in a chain without a flaw."""
        forged = []
        for record in usage.records:
            told = self._told.get(usage.attempt_id)
            previous = (
                told.digest
                if told and told.number == record.number - 1
                else chain_start(usage.attempt_id, usage.epoch)
                if record.number == 1
                else record.previous_digest
            )
            start_ms, end_ms = span(record)
            gpus = [GpuUse(gpu_uuid=gpu.gpu_uuid) for gpu in record.gpus]
            made = make_record(previous, record.number, start_ms, end_ms, gpus)
            self._told[usage.attempt_id] = made
            forged.append(_message(made))
        del usage.records[:]
        usage.records.extend(forged)

    def _left_out(self, message: Request) -> list[Request]:
        for usage in _usages(message):
            if self._dice.chance(0.5):
                self._lied()
                del usage.records[0]
        return [message]

    def _false_digest(self, message: Request) -> list[Request]:
        for record in _records(message):
            if self._dice.chance(0.5):
                self._lied()
                record.end_ms += 1_000
        return [message]

    def _foreign_gpu(self, message: Request) -> list[Request]:
        for record in _records(message):
            self._lied()
            gpus = [GpuUse(gpu_uuid="GPU-somebody-else")]
            made = make_record(record.previous_digest, record.number, record.start_ms, record.end_ms, gpus)
            record.CopyFrom(_message(made))
        return [message]

    def _other_container(self, message: Request) -> list[Request]:
        for report in message.beat.attempts:
            if report.container_id and self._dice.chance(0.3):
                self._lied()
                report.container_id += "-again"
        return [message]

    def _other_epoch(self, message: Request) -> list[Request]:
        by = self._dice.rng.choice([-1, 1])
        parts: list[Any] = [*_usages(message), message.logs, *message.beat.attempts]
        for part in parts:
            if part.attempt_id and self._dice.chance(0.5):
                self._lied()
                part.epoch += by
        return [message]

    def _for_others(self, message: Request) -> list[Request]:
        # Names of attempts get about among sellers.
        others = [
            run.key for host in self._hosts.values() if host is not self._own for run in host.engine.history
        ]
        if not message.HasField("beat") or not others:
            return [message]
        self._lied()
        key = self._dice.rng.choice(others)
        end = message.beat.attempts.add(attempt_id=key.attempt_id, epoch=key.epoch, state=ENDED)
        end.end_reason = types_pb2.END_REASON_EXITED
        record = make_record(chain_start(key.attempt_id, key.epoch), 1, 0, 50_000, [])
        usage = host_pb2.UsageReport(attempt_id=key.attempt_id, epoch=key.epoch, records=[_message(record)])
        chunk = types_pb2.LogChunk(offset=0, stream=types_pb2.LOG_STREAM_STDOUT, data=b"lies")
        logs = host_pb2.LogReport(attempt_id=key.attempt_id, epoch=key.epoch, chunks=[chunk])
        return [message, Request(usage=usage), Request(logs=logs)]

    def _figures(self, message: Request) -> list[Request]:
        for record in _records(message):
            self._lied()
            gpus = [GpuUse(gpu_uuid=gpu.gpu_uuid, utilization_percent=400) for gpu in record.gpus]
            made = make_record(record.previous_digest, record.number, record.start_ms, record.end_ms, gpus)
            record.CopyFrom(_message(made))
        return [message]

    def _undead(self, message: Request) -> list[Request]:
        for report in message.beat.attempts:
            if report.state == ENDED and report.container_id:
                self._lied()
                report.state = RUNNING
                report.ClearField("end_reason")
                report.ClearField("log_totals")
                report.usage_number_last = 0
                report.run_ms += self._dice.rng.randint(0, 5_000)
        return [message]

    def _early(self, message: Request) -> list[Request]:
        for report in message.beat.attempts:
            if report.state == types_pb2.ATTEMPT_STATE_PREPARING:
                self._lied()
                report.state = RUNNING
                report.container_id = "soon"
                report.run_ms = 1
        return [message]

    def _silent(self, message: Request) -> list[Request]:
        if message.beat.attempts:
            self._lied()
            del message.beat.attempts[:]
        return [message]

    def _endless_output(self, message: Request) -> list[Request]:
        for report in message.beat.attempts:
            if report.HasField("log_totals"):
                self._lied()
                report.log_totals.stdout_bytes += 1_000_000
        return [message]

    def _other_output(self, message: Request) -> list[Request]:
        for chunk in message.logs.chunks:
            if self._dice.chance(0.3):
                self._lied()
                chunk.data = b"\0" * len(chunk.data)
            elif self._dice.chance(0.1):
                self._lied()
                chunk.offset += 7
        return [message]


def _message(record: UsageRecord) -> types_pb2.UsageRecord:
    message = types_pb2.UsageRecord(
        number=record.number,
        start_ms=record.start_ms,
        end_ms=record.end_ms,
        previous_digest=record.previous_digest,
        digest=record.digest,
    )
    for use in record.gpus:
        message.gpus.add(gpu_uuid=use.gpu_uuid, utilization_percent=use.utilization_percent)
    return message


KINDS = (
    "doubles its time",
    "leaves records out",
    "gives false digests",
    "bills a foreign GPU",
    "changes the container",
    "speaks under other epochs",
    "speaks for other hosts",
    "gives impossible figures",
    "claims to be alive after the end",
    "claims to run before it does",
    "says nothing of its attempts",
    "promises output that never comes",
    "sends other output",
)


def _usages(message: Request) -> list[host_pb2.UsageReport]:
    """Of one attempt or of several."""
    return [usage for usage in [message.usage, *message.usages.reports] if usage.records]


def _records(message: Request) -> list[types_pb2.UsageRecord]:
    return [record for usage in _usages(message) for record in usage.records]
