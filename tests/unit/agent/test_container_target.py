"""What a supervisor makes of a container's end, from an engine that says what the test wants."""

import json
import re
import socketserver
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from queue import Queue
from select import select

import pytest

from agent.domain.attempt import EndReason
from agent.executor.runs import _run_end
from agent.executor.supervisor.container import ContainerTarget
from agent.executor.supervisor.target import Ended, Started
from tests.rig.parts import wait_until

OUT, ERR = 1, 2
WHOLE = b"[FATAL tini (7)] exec /nope failed: No such file or directory\n"
# As the init writes it.
PIECES = (b"[FATAL tini (7)] ", b"exec /nope failed: No such file or directory", b"\n")
SAID = "/nope failed: No such file or directory"
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
HOUR_MS = 3_600_000


@dataclass(frozen=True, kw_only=True)
class Life:
    """What becomes of the container."""

    output: tuple[tuple[int, bytes], ...]
    exit_code: int = 127
    run_ms: int = 13
    # By how much somebody sets the machine's clock while it runs, and how late its supervisor looks.
    set_by_ms: int = 0
    late_ms: int = 0
    # What the engine remembers of it, asked for the first time and later.
    told: tuple[bytes, ...] = (b"",)


class Engine(socketserver.ThreadingUnixStreamServer):
    """Answers the few requests that there are. A piece of output is sent when the one before was taken."""

    daemon_threads = True

    def __init__(self, path: Path, life: Life) -> None:
        super().__init__(str(path), _Handler)
        self.life = life
        self.may_send: Queue[None] = Queue()
        self.asked = 0


class _Handler(socketserver.StreamRequestHandler):
    server: Engine

    def handle(self) -> None:
        request = self.rfile.readline().decode()
        while self.rfile.readline().strip():
            pass
        life = self.server.life
        if "/attach" in request:
            self.wfile.write(b"HTTP/1.1 101 UPGRADED\r\n\r\n")
            for stream, data in life.output:
                self.server.may_send.get()
                self.wfile.write(struct.pack(">BxxxI", stream, len(data)) + data)
            self.server.may_send.get()
        elif "/json" in request:
            state = {
                "Running": False,
                "Restarting": False,
                "OOMKilled": False,
                "ExitCode": life.exit_code,
                "StartedAt": _text(BEGIN),
                "FinishedAt": _text(BEGIN + timedelta(milliseconds=life.run_ms + life.set_by_ms)),
            }
            self.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n" + json.dumps({"State": state}).encode())
        elif "/events" in request:
            since, until = (float(found) for found in re.findall(r"(?:since|until)=([\d.]+)", request))
            assert since <= until, "the engine refuses"
            told = life.told[min(self.server.asked, len(life.told) - 1)]
            self.server.asked += 1
            self.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n" + told)
        else:
            self.wfile.write(b"HTTP/1.0 204 No Content\r\n\r\n")


def _text(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


@pytest.fixture
def clock(monkeypatch) -> list[int]:
    """The supervisor's since boot, and how far the machine's is ahead of it; both to be set."""
    now = [1_000, round(BEGIN.timestamp() * 1_000) - 1_000]
    monkeypatch.setattr("agent.executor.supervisor.container.boot_ms", lambda: now[0])
    monkeypatch.setattr("agent.executor.supervisor.container.wall_ms", lambda: sum(now))
    return now


@contextmanager
def engine(folder: Path, life: Life) -> Iterator[tuple[Engine, ContainerTarget]]:
    path = folder / "e.sock"
    with Engine(path, life) as served:
        thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield served, ContainerTarget({"socket": str(path), "container": "c"})
        finally:
            served.shutdown()
            thread.join()


def end_of(folder: Path, clock: list[int], life: Life) -> tuple[Ended, bytes]:
    with engine(folder, life) as (served, target):
        target.start()
        clock[0] += life.run_ms + life.late_ms
        clock[1] += life.set_by_ms
        output = b""
        while not target.is_drained():
            served.may_send.put(None)
            (descriptor,) = target.descriptors(with_output=True)
            select([descriptor], [], [], 20)
            output += b"".join(data for _, data in target.read([descriptor]))
        end = target.ended()
        if end is None:
            clock[0] += 1_000
            end = target.ended()
    assert end is not None
    return end, output


@pytest.mark.parametrize("pieces", [(WHOLE,), PIECES, tuple(bytes([byte]) for byte in WHOLE)])
def test_a_command_that_is_not_there_never_ran(tmp_path, clock, pieces):
    life = Life(output=tuple((ERR, piece) for piece in pieces))
    end, output = end_of(tmp_path, clock, life)
    assert end == Ended(exit_code=None, run_ms=0, unstartable=SAID)
    assert output == WHOLE


@pytest.mark.parametrize(
    "life",
    [
        pytest.param(Life(output=((ERR, WHOLE),), run_ms=1_001), id="it ran before it said so"),
        pytest.param(Life(output=((ERR, WHOLE),), exit_code=1), id="it ended otherwise"),
        pytest.param(Life(output=((OUT, b"x"), (ERR, WHOLE))), id="it wrote something before"),
        pytest.param(Life(output=((ERR, WHOLE), (OUT, b"x"))), id="it wrote something after"),
        pytest.param(Life(output=((ERR, PIECES[0]), (ERR, b"oh"))), id="it said something else"),
        pytest.param(Life(output=()), id="it said nothing"),
    ],
)
def test_a_command_that_ran_is_not_believed_that_it_did_not(tmp_path, clock, life):
    end, _ = end_of(tmp_path, clock, life)
    assert end == Ended(exit_code=life.exit_code, run_ms=life.run_ms)


def test_who_missed_the_beginning_does_not_judge_by_it(tmp_path, clock):
    with engine(tmp_path, Life(output=((ERR, WHOLE),))) as (_, target):
        clock[0] += 13
        target.resume(Started(run_id="c", start_boot_ms=1_000))
        wait_until(lambda: target.ended() is not None, "its end is known")
        gap = "its supervisor was restarted; output written meanwhile may be missing"
        assert target.ended() == Ended(exit_code=127, run_ms=13, note=gap)


DIE, KILL = (f'{{"status":"{action}","Action":"{action}"}}\n'.encode() for action in ("die", "kill"))


@pytest.mark.parametrize(
    ("told", "is_own"),
    [
        pytest.param((DIE,), True, id="it saw it end and had sent no signal"),
        pytest.param((KILL + DIE,), False, id="it had sent one"),
        # The one before it may have (found by chaos, whose buyers saw jobs end with 143).
        pytest.param((b"",), False, id="it came later and knows nothing"),
        pytest.param((DIE + KILL[:20], KILL + DIE), False, id="it was cut off in the middle of its answer"),
    ],
)
def test_an_end_by_a_signal_is_the_commands_own_if_the_engine_vouches_for_it(tmp_path, clock, told, is_own):
    end, _ = end_of(tmp_path, clock, Life(output=(), exit_code=143, told=told))
    assert (end.exit_code, bool(end.lost)) == ((143, False) if is_own else (None, True))


def test_who_ends_in_order_when_the_engine_asks_for_it_was_ended_by_the_engine(tmp_path, clock):
    """It saves what it has, and says 0: its buyer would take it for done."""
    end, _ = end_of(tmp_path, clock, Life(output=(), exit_code=0, told=(KILL + DIE,)))
    assert (end.exit_code, bool(end.lost)) == (None, True)


@pytest.mark.parametrize("told", [DIE, b""])
def test_who_ends_in_order_has_ended_itself_unless_the_engine_knows_otherwise(tmp_path, clock, told):
    end, _ = end_of(tmp_path, clock, Life(output=(), exit_code=0, told=(told,)))
    assert (end.exit_code, bool(end.lost)) == (0, False)


def test_a_clock_that_was_set_back_hides_no_end_by_a_signal(tmp_path, clock):
    """The engine refused to look from after the end, and the supervisor asked it again for ever."""
    end, _ = end_of(tmp_path, clock, Life(output=(), exit_code=143, set_by_ms=-HOUR_MS, told=(DIE,)))
    assert end.exit_code == 143


@pytest.mark.parametrize(("told", "is_own"), [(DIE, True), (b"", False)])
def test_an_engine_vouches_also_to_who_was_not_there(tmp_path, clock, told, is_own):
    with engine(tmp_path, Life(output=(), exit_code=255, told=(told,))) as (_, target):
        clock[0] += 13
        target.resume(Started(run_id="c", start_boot_ms=1_000))
        end = target.ended()
    assert end is not None
    assert (end.exit_code, bool(end.lost)) == ((255, False) if is_own else (None, True))


@pytest.mark.parametrize(
    "life",
    [
        # Its buyer paid for the six seconds that its supervisor was frozen (found by chaos, seed 6).
        pytest.param(Life(output=(), run_ms=521, late_ms=6_100), id="looked late"),
        pytest.param(Life(output=(), run_ms=521, set_by_ms=HOUR_MS), id="clock set forward"),
        pytest.param(Life(output=(), run_ms=521, set_by_ms=-HOUR_MS), id="clock set back"),
        pytest.param(Life(output=(), run_ms=521, late_ms=6_100, set_by_ms=HOUR_MS), id="forward and late"),
        pytest.param(Life(output=(), run_ms=9_000, late_ms=6_100, set_by_ms=-HOUR_MS), id="back and late"),
    ],
)
def test_what_is_paid_is_what_it_ran_however_late_one_looks_and_whoever_sets_the_clock(tmp_path, clock, life):
    end, _ = end_of(tmp_path, clock, life)
    assert end.run_ms == life.run_ms


def test_a_clock_that_is_set_after_the_end_takes_no_time_away(tmp_path, clock):
    with engine(tmp_path, Life(output=(), run_ms=9_000)) as (served, target):
        target.start()
        clock[0] += 9_000
        served.may_send.put(None)
        wait_until(
            lambda: not target.read(target.descriptors(with_output=True)) and target.is_drained(), "end"
        )
        clock[1] -= HOUR_MS
        end = target.ended()
    assert end is not None
    assert end.run_ms == 9_000


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ({"stopped": "paid_through"}, EndReason.PAID_THROUGH),
        ({"out_of_memory": True}, EndReason.OUT_OF_MEMORY),
        ({"lost": "the container was removed"}, EndReason.HOST_LOST),
        ({}, EndReason.EXITED),
    ],
)
def test_that_output_is_missing_is_said_however_the_run_ended(told, reason):
    """Of one whose paid time was used up it was not (found by chaos, seed 6)."""
    exit_ = {
        "exit_code": 143,
        "run_ms": 1,
        "out_of_memory": False,
        "lost": "",
        "unstartable": "",
        "stopped": "",
    }
    end = _run_end({**exit_, "note": "lines are missing", **told})
    assert end.reason is reason
    assert "lines are missing" in end.detail
