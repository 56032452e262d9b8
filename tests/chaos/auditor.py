"""Holds the market of real processes to its promises: by its database, its agents' journals, and the engine.

What must hold of a database at every moment and in the end is the same as in the simulation
(`tests/support/promises.py`); what truly ran is read from whoever ran it.
"""

import hashlib
import json
import subprocess
from contextlib import suppress
from itertools import pairwise
from operator import itemgetter
from pathlib import Path
from typing import Any

import psycopg
from psycopg import IsolationLevel
from psycopg.rows import dict_row
from psycopg.types.json import set_json_loads

from agent.domain import record as journal_line
from agent.domain.plan import LABEL_ATTEMPT
from tests.chaos.buyers import Wish
from tests.chaos.scene import AGENTS, DEPOSIT, Scene
from tests.support.agent_process import job_processes, supervisors
from tests.support.market import program
from tests.support.promises import Promises, Rows
from tests.support.witness import BEYOND_MS_MAX, Witness

CREDIT = 1_000_000
# What a run says of itself whose engine was restarted under it.
_GAP = "output written meanwhile may be missing"


class Auditor:
    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self.violations: list[str] = []
        self.looks = self.missed_looks = 0
        self._connection: psycopg.Connection[dict[str, Any]] | None = None
        self._promises = Promises(self._rows, self._require, DEPOSIT * CREDIT)
        self._witness = Witness([scene.market.runs_of(name) for name in AGENTS], scene.engine.base_url)
        # By attempt and number, the digest of each record that was seen in a journal.
        self.journaled: dict[str, dict[int, bytes]] = {}

    def close(self) -> None:
        self._witness.close()
        if self._connection is not None:
            self._connection.close()

    def _require(self, condition: bool, text: str) -> None:
        if not condition and text not in self.violations:
            self.violations.append(text)

    def _rows(self, query: str, *values: object) -> Rows:
        assert self._connection is not None
        return self._connection.execute(query.replace("?", "%s").encode(), values).fetchall()

    def look(self) -> None:
        """One moment of the database, if it is there, and what the agents hold."""
        self._read_journals()
        try:
            if self._connection is None:
                self._connection = _connect(self._scene.postgres.conninfo("market"))
            with self._connection.transaction():
                self._promises.at_every_moment()
        except psycopg.Error:
            self.missed_looks += 1
            if self._connection is not None:
                self._connection.close()
            self._connection = None
        else:
            self.looks += 1

    def _read_journals(self) -> None:
        for name in AGENTS:
            for path in self._scene.market.state_of(name).glob("attempts/*/usage.journal"):
                with suppress(OSError):
                    for line in path.read_bytes().splitlines():
                        if (record := journal_line.decode(line)) is not None:
                            of = self.journaled.setdefault(_attempt_of(path.parent.name), {})
                            was = of.setdefault(record.number, record.digest)
                            self._require(
                                was == record.digest, f"{path.parent.name} has two records {record.number}"
                            )

    def left(self) -> list[str]:
        """What has not come to its end yet."""
        self.look()
        if self._connection is None:
            return ["the database is away"]
        found = self._rows("SELECT id, state FROM job WHERE ended_ms IS NULL")
        found += self._rows(
            "SELECT id, state, log_state FROM attempt WHERE state <> 'ended' OR log_state = 'open'"
        )
        found += self._rows("SELECT id, state FROM host WHERE state <> 'online'")
        self._connection.rollback()
        left = [str(row) for row in found]
        for name in AGENTS:
            state = self._scene.market.state_of(name)
            left += [f"{name} keeps {path.name}" for path in state.glob("attempts/*")]
            left += [f"{name} has supervisor {pid}" for pid in supervisors(state)]
            left += [f"{name} has process {pid}" for pid in job_processes(state)]
        with self._scene.engine.client() as client:
            for each in client.api.containers(all=True, filters={"label": LABEL_ATTEMPT}):
                left.append(f"container {each['Names']} {each['Status']}")
        return left

    def judge(self, wishes: list[Wish]) -> None:
        """When all is over."""
        self.look()
        self._require(self._witness.is_awake, "who was to witness what ran did not do so to the end")
        assert self._connection is not None
        with self._connection.transaction():
            self._promises.at_the_end()
            attempts = self._rows("SELECT * FROM attempt")
            jobs = self._rows("SELECT * FROM job")
            for attempt in attempts:
                self._billed(attempt)
                self._recorded(attempt)
            self._lives()
            by_name: dict[str, list[dict[str, Any]]] = {}
            for job in jobs:
                by_name.setdefault(json.loads(job["spec"])["name"], []).append(job)
            for wish in wishes:
                self._wish(wish, by_name.get(wish.name, []), attempts)
        self._audit_command()

    def _billed(self, attempt: dict[str, Any]) -> None:
        """Nothing is billed beyond what whoever ran it saw of it."""
        for who, truth in (("engine", self._witness.by_engine), ("supervisor", self._witness.by_supervisor)):
            ran_ms = truth.get(attempt["id"])
            if ran_ms is not None:
                most_ms = max(0, ran_ms) + BEYOND_MS_MAX
                self._require(
                    attempt["billed_ms"] <= most_ms,
                    f"{attempt['id']} billed {attempt['billed_ms']} ms and ran {ran_ms} ms by the {who}",
                )

    def _recorded(self, attempt: dict[str, Any]) -> None:
        """What its journal held and was taken in is on the bill, once, with the digest that it had."""
        lines = self._rows("SELECT number, digest FROM bill_line WHERE attempt_id = ?", attempt["id"])
        billed = {line["number"]: bytes(line["digest"]) for line in lines}
        journaled = self.journaled.get(attempt["id"], {})
        for number in billed.keys() & journaled.keys():
            self._require(
                billed[number] == journaled[number], f"{attempt['id']}: record {number} is another one"
            )
        # What was never taken in, because its host could not tell it in time, is on no bill.
        taken = {number for number in journaled if number <= attempt["usage_number"]}
        missing = sorted(taken - billed.keys())
        self._require(not missing, f"records {missing} are on no bill: {_ends([attempt])}")

    def _lives(self) -> None:
        """Event numbers are one order for the whole market: of one GPU, lives must not overlap in it."""
        lives: dict[str, list[tuple[int, int, str]]] = {}
        for row in self._rows(
            "SELECT a.id, a.gpus, e.number AS began, f.number AS ended FROM attempt a"
            " JOIN event e ON e.attempt_id = a.id AND e.kind = 'assigned'"
            " JOIN event f ON f.attempt_id = a.id AND f.kind = 'attempt_ended'"
        ):
            for gpu in json.loads(row["gpus"]):
                lives.setdefault(gpu["uuid"], []).append((row["began"], row["ended"], row["id"]))
        for uuid, of in lives.items():
            of.sort()
            for (_, ended, one), (began, _, other) in pairwise(of):
                self._require(ended < began, f"GPU {uuid} was sold to {other} before {one} had ended")
        for row in self._rows(
            "SELECT job_id, count(*) AS ends FROM event WHERE kind = 'ended' GROUP BY job_id"
        ):
            self._require(row["ends"] == 1, f"{row['job_id']} ended {row['ends']} times")

    def _wish(self, wish: Wish, jobs: list[dict[str, Any]], attempts: Rows) -> None:
        """One job at most came of it, its output is what it wrote, and its buyer was told the truth."""
        self._require(len(jobs) <= 1, f"{wish.name} became {len(jobs)} jobs")
        for job in jobs:
            own = [attempt for attempt in attempts if attempt["job_id"] == job["id"]]
            for attempt in own:
                self._output(wish, attempt)
            last = max(own, key=itemgetter("epoch"), default=None)
            if last is not None and last["end_reason"] == "exited":
                right = (job["state"], job["exit_code"]) == (_state_after(wish.code), wish.code)
                self._require(right, f"{wish.name} is {job['state']}, not {wish.code}: {_ends(own)}")
                if wish.exit_code == wish.code and len(own) == 1 and _is_whole(last):
                    told = _apart(wish.out, wish.written("line")) if wish.out is not None else ""
                    self._require(not told, f"{wish.name}: its buyer saw other output: {told}: {wish.err}")
        own_codes = (0, wish.code) if jobs else ()
        # Below 0 it was we who ended it, after it had been patient for long.
        if wish.exit_code is not None and 0 <= wish.exit_code < 100 and wish.out is not None:
            self._require(
                wish.exit_code in own_codes, f"{wish.name}: usance exits {wish.exit_code}: {wish.err}"
            )

    def _output(self, wish: Wish, attempt: dict[str, Any]) -> None:
        kept = {1: b"", 2: b""}
        offset = 0
        for chunk in self._rows(
            "SELECT * FROM log_chunk WHERE attempt_id = ? ORDER BY offset_bytes", attempt["id"]
        ):
            self._require(chunk["offset_bytes"] == offset, f"{attempt['id']}'s output has a hole at {offset}")
            kept[chunk["stream"]] += chunk["data"]
            offset += len(chunk["data"])
        whole = attempt["end_reason"] == "exited" and attempt["exit_code"] == wish.code and _is_whole(attempt)
        for stream, word in ((1, "line"), (2, "error")):
            true = wish.written(word)
            told = _apart(kept[stream], true[: len(kept[stream])])
            good = not told or _GAP in attempt["detail"]
            self._require(good, f"{attempt['id']}'s output is not what it wrote: {told}: {_ends([attempt])}")
            if whole:
                same = hashlib.sha256(kept[stream]).digest() == hashlib.sha256(true).digest()
                self._require(same, f"{attempt['id']}'s output is called complete and is not")

    def _audit_command(self) -> None:
        argv = [program("usance-coordinator"), "audit", "--data-dir", str(self._scene.market.data)]
        argv += ["--database", self._scene.postgres.url("market")]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
        self._require(done.returncode == 0, f"usance-coordinator audit: {done.stdout}{done.stderr}")

    @property
    def witnessed(self) -> tuple[int, int]:
        """How many attempts an engine and a supervisor have told of."""
        return len(self._witness.by_engine), len(self._witness.by_supervisor)

    def ends(self) -> Rows:
        found = self._rows(
            "SELECT end_reason, cause, count(*) AS count FROM attempt GROUP BY 1, 2 ORDER BY 3 DESC"
        )
        assert self._connection is not None
        self._connection.rollback()
        return found


def _state_after(exit_code: int) -> str:
    return "failed" if exit_code else "succeeded"


def _is_whole(attempt: dict[str, Any]) -> bool:
    return attempt["log_state"] == "complete" and _GAP not in attempt["detail"]


def _apart(seen: bytes, true: bytes) -> str:
    """Where the two go apart, for whoever is to find out why; empty where they don't."""
    if seen == true:
        return ""
    shorter = min(len(seen), len(true))
    at = next((n for n in range(shorter) if seen[n] != true[n]), shorter)
    parts = (repr(data[at : at + 60]) for data in (seen, true))
    return f"{len(seen)} bytes, not {len(true)}; from {at} on {', not '.join(parts)}"


def _ends(attempts: Rows) -> list[str]:
    names = ("id", "host_id", "container_id", "end_reason", "cause", "exit_code", "detail")
    return [" ".join(str(attempt[name]) for name in names) for attempt in attempts]


def _attempt_of(folder: str) -> str:
    return Path(folder).name.rsplit(".", 1)[0]


def _connect(conninfo: str) -> psycopg.Connection[dict[str, Any]]:
    connection = psycopg.connect(conninfo, row_factory=dict_row)
    connection.isolation_level = IsolationLevel.REPEATABLE_READ
    # As another database has it.
    set_json_loads(lambda raw: raw if isinstance(raw, str) else raw.decode(), connection)
    return connection
