"""Holds the market to its promises: written from docs and contract, with arithmetic and queries of its own.

It reads the database, what truly ran on the machines, and what arrived over the network; never what the
programs think. `look` is called after every commit, `judge` when all is over.
"""

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import groupby, pairwise
from operator import itemgetter
from typing import Any

from agent.domain.attempt import EndReason, OutputStream
from tests.sim.coordinator import RULES, SimCoordinator, Storage
from tests.sim.engine import Container
from tests.sim.faults import Story
from tests.sim.host import RECORD_MS, SimHost
from tests.support.promises import Promises
from usance.v1 import host_pb2, types_pb2

DEPOSIT_MICRO = 300_000_000
WINDOW_MS = RULES.reconnect_window_ms
# From the arrival of a message to the stamp of the transaction that takes it in.
TAKING_IN_MS = 4_000
# How much later the last of several messages is taken in than the first, at most.
SKEW_MS = 1_000
DRIFT = 0.002
# How late an agent may be in stopping what is no longer paid: a failing disk costs it some tries.
LATE_MS = 20_000


@dataclass
class Sightings:
    """When the coordinator noted an attempt as alive, on its own clock, and when that truly was."""

    stamps: list[tuple[str, int, float]] = field(default_factory=list)

    def note(self, boot_id: str, boot_ms: int, moment_s: float) -> bool:
        if self.stamps and self.stamps[-1][:2] == (boot_id, boot_ms):
            return False
        self.stamps.append((boot_id, boot_ms, moment_s))
        return True

    def covered_ms(self, until_s: float) -> float:
        """True time between sightings that are near enough to each other, up to a moment."""
        total_s = 0.0
        for (boot, _, one), (other_boot, _, other) in pairwise(self.stamps):
            if boot != other_boot:
                continue  # over a reboot of the coordinator only its wall clock is left, which jumps
            if (other - one) * 1_000 <= WINDOW_MS * (1 - DRIFT) - 100:
                total_s += max(0.0, min(other, until_s) - one)
        return total_s * 1_000

    def counted_ms(self, stop: dict[str, Any] | None) -> int:
        """The most that can be made of them, to the millisecond of the coordinator's own clock."""
        total_ms = 0
        for (boot, one_ms, _), (other_boot, other_ms, _) in pairwise(self.stamps):
            if boot != other_boot:
                total_ms += WINDOW_MS  # by a wall clock that jumps
                continue
            until_ms = min(other_ms, stop["boot_ms"]) if stop and stop["boot_id"] == boot else other_ms
            # Of several that came into one commit we see the last.
            total_ms += max(0, until_ms - one_ms) if other_ms - one_ms <= WINDOW_MS else SKEW_MS
        return total_ms

    def boots_crossed(self) -> int:
        return sum(one[0] != other[0] for one, other in pairwise(self.stamps))


class Auditor:
    def __init__(self, story: Story, storage: Storage) -> None:
        self._story = story
        self._storage = storage
        self._loop = story.loop
        self.hosts: dict[str, SimHost] = {}
        self.coordinator: SimCoordinator | None = None
        self.looks = 0
        self._looked_at: object = None
        self._paid_through_ms: dict[str, int] = {}
        self._said: set[str] = set()
        self._promises = Promises(self.rows, self.require, DEPOSIT_MICRO)
        self.sightings: dict[str, Sightings] = defaultdict(Sightings)
        self.assigned_s: dict[str, float] = {}
        self.stops: dict[str, float] = {}
        self.ended_s: dict[str, float] = {}
        # Whose host had been silent for the window: its last records were not waited for any longer.
        self.given_up: set[str] = set()
        # By attempt: when a message that shows it alive or just ended arrived; by host: any message.
        self.shown: dict[str, list[float]] = defaultdict(list)
        self.heard: dict[str, list[float]] = defaultdict(list)
        # By attempt: when its end was first told, and up to where records of it have come, and when.
        self.end_told_s: dict[str, float] = {}
        self.recorded: dict[str, list[tuple[float, int]]] = defaultdict(list)
        self._ends_ms: dict[str, dict[int, int]] = defaultdict(dict)
        # By attempt: the last record that was acknowledged, and when; and up to where output was.
        self.acknowledged: dict[str, tuple[int, float]] = {}
        self._offsets: dict[str, int] = {}
        # By attempt: how much of its output has come, and when and at how much nobody waited for more.
        self._output_bytes: dict[str, int] = defaultdict(int)
        self._closed: dict[str, tuple[float, int]] = {}

    def require(self, condition: bool, text: str) -> None:
        if not condition and text not in self._said:
            self._said.add(text)
            self._story.violate(text)

    def arrived(self, host_id: str, raw: bytes) -> None:
        self.heard[host_id].append(self._loop.time())
        message = host_pb2.SynchronizeRequest.FromString(raw)
        for report in message.beat.attempts:
            if report.container_id:
                self.shown[report.attempt_id].append(self._loop.time())
            if report.state == types_pb2.ATTEMPT_STATE_ENDED:
                self.end_told_s.setdefault(report.attempt_id, self._loop.time())
        for usage in [message.usage, *message.usages.reports]:
            if usage.records:
                self.shown[usage.attempt_id].append(self._loop.time())
                self.recorded[usage.attempt_id].append((self._loop.time(), usage.records[-1].end_ms))
                self._ends_ms[usage.attempt_id].update({of.number: of.end_ms for of in usage.records})
        for chunk in message.logs.chunks:
            # Up to where output has come, without a hole.
            if chunk.offset <= self._output_bytes[message.logs.attempt_id]:
                end = chunk.offset + len(chunk.data)
                self._output_bytes[message.logs.attempt_id] = max(
                    end, self._output_bytes[message.logs.attempt_id]
                )

    def told(self, message: host_pb2.SynchronizeResponse) -> None:
        """The coordinator says so: what it acknowledges is stored for good."""
        for of in [message.acknowledged, *message.acknowledged_many.acknowledged]:
            self._acknowledged(of.attempt_id, of.usage_number, of.log_offset)
        for want in message.desired.attempts:
            self._acknowledged(want.attempt_id, want.usage_number_acknowledged, want.log_offset_acknowledged)

    def _acknowledged(self, attempt_id: str, number: int, offset: int) -> None:
        if number > self.acknowledged.get(attempt_id, (0, 0.0))[0]:
            self.acknowledged[attempt_id] = number, self._loop.time()
            (kept,) = self.rows("SELECT count(*) AS lines FROM bill_line WHERE attempt_id = ?", attempt_id)
            self.require(
                kept["lines"] >= number, f"{attempt_id}: {number} records acknowledged, {kept} are kept"
            )
        if offset > self._offsets.get(attempt_id, 0):
            self._offsets[attempt_id] = offset
            (kept,) = self.rows(
                "SELECT log_state, (SELECT coalesce(sum(length(data)), 0) FROM log_chunk"
                " WHERE attempt_id = a.id) AS bytes FROM attempt a WHERE id = ?",
                attempt_id,
            )
            # Of what nobody waits for any more the agent is told that it need not keep it.
            self.require(
                kept["bytes"] >= offset or kept["log_state"] != "open",
                f"{attempt_id}: {offset} bytes acknowledged, {kept} are kept",
            )

    def container(self, attempt_id: str) -> Container | None:
        for host in self.hosts.values():
            for run in host.engine.history:
                if run.key.attempt_id == attempt_id:
                    return run
        return None

    def rows(self, query: str, *values: object) -> list[dict[str, Any]]:
        cursor = self._storage.raw.execute(query, values)
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor]

    # After every commit

    def look(self) -> None:
        """What only the database says is not asked again of one that has not changed since."""
        self.looks += 1
        version = self._storage.version
        if self._looked_at != version:
            self._looked_at = version
            self._promises.at_every_moment()
            self._attempts()
        self._fuses()

    def _fuses(self) -> None:
        """Nothing runs on past what is paid, whoever is cut off; a dead agent's engine may have a fuse."""
        for host in self.hosts.values():
            settled_s = self._loop.time() - LATE_MS / 1_000
            awake = host.process is not None and host.agent_alive and host.process.born_s < settled_s
            stopping = awake and host.engine.away_until_s < settled_s
            for run in (run for run in host.engine.runs.values() if run.end_s is None):
                paid_ms = self._paid_through_ms[run.key.attempt_id]
                ran_ms = host.clock.boot_ms() - run.start_boot_ms
                self.require(
                    bool(host.lie) or paid_ms <= ran_ms + WINDOW_MS * (1 + DRIFT),
                    f"{run.key} is paid through {paid_ms} ms, and has run {ran_ms} ms",
                )
                if host.engine.has_fuse or stopping:
                    most_ms = paid_ms + run.order.stop_grace_ms + LATE_MS
                    self.require(ran_ms <= most_ms, f"{run.key} runs at {ran_ms} ms, past {most_ms} ms")

    def _attempts(self) -> None:
        for row in self.rows("SELECT * FROM attempt"):
            name, now_s = row["id"], self._loop.time()
            self._paid_through_ms[name] = row["paid_through_ms"]
            self.assigned_s.setdefault(name, now_s)
            if row["log_state"] != "open":
                self._closed.setdefault(name, (now_s, self._output_bytes[name]))
            if name in self.ended_s:
                continue
            if row["sighted"]:
                self._sighted(row, json.loads(row["sighted"]))
            if row["stop_asked"]:
                self.stops.setdefault(name, self._moment(json.loads(row["stop_asked"])))
            if row["state"] == "ended":
                self.ended_s[name] = now_s
                self._ended(row)
            self._billed(row)

    def _moment(self, stamp: dict[str, Any]) -> float:
        """The true time of a stamp of the coordinator's; now where it has been rebooted since."""
        assert self.coordinator is not None
        clock = self.coordinator.clock
        if stamp["boot_id"] != clock.boot_id:
            return self._loop.time()
        ago_ms: int = clock.boot_ms() - stamp["boot_ms"]
        return self._loop.time() - ago_ms / 1_000 / clock.rate

    def _sighted(self, row: dict[str, Any], stamp: dict[str, Any]) -> None:
        seen = self.sightings[row["id"]]
        moment_s = self._moment(stamp)
        known = self.coordinator is not None and stamp["boot_id"] == self.coordinator.clock.boot_id
        if seen.note(stamp["boot_id"], stamp["boot_ms"], moment_s) and known:
            near = [t for t in self.shown[row["id"]] if -0.01 <= moment_s - t <= TAKING_IN_MS / 1_000]
            self.require(
                bool(near), f"{row['id']} was noted as seen at {moment_s:.3f}, when nothing had come"
            )

    def _billed(self, row: dict[str, Any]) -> None:
        name, billed_ms = row["id"], row["billed_ms"]
        if not billed_ms:
            return
        host, run = self.hosts[row["host_id"]], self.container(name)
        seen, stop = self.sightings[name], row["stop_asked"] and json.loads(row["stop_asked"])
        most_ms = min(_most_ms(self.shown[name]) + WINDOW_MS * seen.boots_crossed(), seen.counted_ms(stop))
        self.require(
            billed_ms <= most_ms, f"{name} billed {billed_ms} ms and at most {most_ms:.0f} were witnessed"
        )
        self.require(run is not None or bool(host.lie), f"{name} billed {billed_ms} ms and never ran")
        if run is None or host.lie:
            return
        ran_ms = host.clock.boot_ms() - run.start_boot_ms if run.run_ms is None else run.run_ms
        self.require(billed_ms <= ran_ms, f"{name} billed {billed_ms} ms and ran {ran_ms} ms")
        stop_s = self.stops.get(name)
        if stop_s is not None:
            most_ms = (stop_s - run.start_s) * 1_000 * (1 + DRIFT) + 2
            self.require(
                billed_ms <= max(0, most_ms), f"{name} billed {billed_ms} ms, stop asked at {most_ms:.0f} ms"
            )

    def _ended(self, row: dict[str, Any]) -> None:
        name, host = row["id"], self.hosts[row["host_id"]]
        reason = row["end_reason"]
        self._story.seen[f"attempt ended: {reason}"] += 1
        self.require(bool(row["cause"]), f"{name} ended without a cause")
        if host.lie:
            return
        self.require(reason != "claim_refused", f"{name}: an honest host was called a liar: {row['lie']}")
        self.require(reason != "host_forgot", f"{name}: an honest host was said to have forgotten")
        if not row["reported_end"]:
            last_s = max((t for t in self.heard[row["host_id"]] if t < self._loop.time() - 1), default=0)
            silent_ms = (self._loop.time() - last_s) * 1_000
            if silent_ms >= WINDOW_MS * (1 - DRIFT) - TAKING_IN_MS:
                self.given_up.add(name)
            self.require(
                reason != "host_lost" or name in self.given_up,
                f"{name}: its host was given up after {silent_ms:.0f} ms of silence",
            )
        run = self.container(name)
        if reason == "exited" and run is not None and not row["stop_reason"]:
            self.require(
                row["exit_code"] == run.exit_code,
                f"{name} exited with {run.exit_code}, told {row['exit_code']}",
            )

    # When all is over

    def judge(self) -> None:
        self.look()
        self._promises.at_the_end()
        for row in self.rows("SELECT host_id, kind, subject FROM strike"):
            self.require(bool(self.hosts[row["host_id"]].lie), f"honest, and held to lie: {row.values()}")
        for row in self.rows("SELECT * FROM attempt"):
            host = self.hosts[row["host_id"]]
            if not host.lie:
                self._log(row)
                self._paid(row)

    def cancelled(self, job_id: str, moment_s: float) -> None:
        """The buyer had it in writing at this moment that the job was being cancelled."""
        for row in self.rows("SELECT id, billed_ms, host_id FROM attempt WHERE job_id = ?", job_id):
            name, run = row["id"], self.container(row["id"])
            self.require(self.assigned_s[name] <= moment_s, f"{name} was begun after {job_id} was cancelled")
            if run is not None and not self.hosts[row["host_id"]].lie:
                most_ms = max(0.0, (moment_s - run.start_s) * 1_000 * (1 + DRIFT) + 2)
                self.require(
                    row["billed_ms"] <= most_ms,
                    f"{name} billed {row['billed_ms']} ms, cancelled at {most_ms:.0f}",
                )

    def _paid(self, row: dict[str, Any]) -> None:
        """An honest seller has every witnessed millisecond, but for what rounding and drift make of it."""
        name, run = row["id"], self.container(row["id"])
        if run is None or run.end_s is None or row["end_reason"] == "claim_refused":
            return
        until_s = min(run.end_s, self.stops.get(name, run.end_s))
        bought_ms = min(row["run_ms_affordable"], row["run_ms_max"])
        due_ms = min(self.sightings[name].covered_ms(until_s) * (1 - DRIFT) - 20, bought_ms)
        waited_s = self.ended_s[name] - self.end_told_s.get(name, self.ended_s[name])
        if waited_s * 1_000 >= WINDOW_MS * (1 - DRIFT) - TAKING_IN_MS:
            # Its end was told, and for a whole window the last of its records did not come.
            came = [end_ms for at_s, end_ms in self.recorded[name] if at_s <= self.ended_s[name]]
            due_ms = min(due_ms, max(came, default=0))
        if any(t >= run.end_s for t in self.hosts[row["host_id"]].power_losses_s):
            due_ms -= RECORD_MS  # it may have been lost with the power, before it could be told
        if run.reason is EndReason.HOST_LOST or name in self.given_up or row["end_reason"] == "host_lost":
            # The rest it could not write down, or tell in time. What was acknowledged it has all the same.
            number, at_s = self.acknowledged.get(name, (0, 0.0))
            seen_ms = self.sightings[name].covered_ms(min(until_s, at_s)) * (1 - DRIFT) - SKEW_MS
            due_ms = min(self._ends_ms[name].get(number, 0) - 20, seen_ms, bought_ms)
        self.require(
            row["billed_ms"] >= due_ms,
            f"{name} ({row['end_reason']}) was paid {row['billed_ms']} ms of {due_ms:.0f}",
        )

    def _log(self, row: dict[str, Any]) -> None:
        name, run = row["id"], self.container(row["id"])
        kept: list[tuple[int, bytes]] = []
        offset = 0
        for chunk in self.rows("SELECT * FROM log_chunk WHERE attempt_id = ? ORDER BY offset_bytes", name):
            self.require(chunk["offset_bytes"] == offset, f"{name}'s output has a hole at {offset}")
            kept.append((chunk["stream"], chunk["data"]))
            offset += len(chunk["data"])
        true = [(1 if c.stream is OutputStream.STDOUT else 2, c.data) for c in run.output] if run else []
        kept, true = _joined(kept), _joined(true)
        self.require(_begins(true, kept), f"{name}'s output is not what it wrote")
        whole = kept == true
        self.require(row["log_state"] != "open", f"{name}'s output is still awaited")
        if row["log_state"] == "complete":
            self.require(whole, f"{name}'s output is called complete and is not")
        elif row["end_reason"] == "exited":
            host = self.hosts[row["host_id"]]
            after = [t for t in self.heard[host.id] if t >= self.ended_s[name] - 1]
            gaps = [b - a for a, b in pairwise(after)]
            closed_s, came_bytes = self._closed[name]
            waited_ms = (closed_s - self.end_told_s.get(name, closed_s)) * 1_000
            in_vain = waited_ms >= WINDOW_MS * (1 - DRIFT) - TAKING_IN_MS and came_bytes < sum(
                map(_size, true)
            )
            lost = in_vain or max(gaps, default=0) * 1_000 > WINDOW_MS * 0.8
            self.require(lost, f"{name} exited, its host was there, and its output is {row['log_state']}")


def _size(piece: tuple[int, bytes]) -> int:
    return len(piece[1])


def _most_ms(moments_s: list[float]) -> float:
    """The most that a coordinator can have witnessed which was shown a run at these moments."""
    gaps_s = [other - one for one, other in pairwise(moments_s)]
    near_s = sum(gap for gap in gaps_s if gap * 1_000 <= WINDOW_MS * (1 + DRIFT) + TAKING_IN_MS)
    return near_s * 1_000 * (1 + DRIFT) + SKEW_MS


def _joined(chunks: Iterable[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    """Neighbours of one stream as one piece: how output was cut into chunks does not matter."""
    return [(stream, b"".join(data for _, data in of)) for stream, of in groupby(chunks, key=itemgetter(0))]


def _begins(whole: list[tuple[int, bytes]], part: list[tuple[int, bytes]]) -> bool:
    """Is `part` how `whole` begins?"""
    if not part:
        return True
    *firsts, (stream, data) = part
    rest = whole[len(firsts) : len(part)]
    return (
        whole[: len(firsts)] == firsts and bool(rest) and rest[0][0] == stream and rest[0][1].startswith(data)
    )
