"""A container that the agent has created: started, attached to and stopped through the engine's socket.

The engine's own log files would not do: one format replaces bytes that are not UTF-8, the other loses line
feeds after long lines. What comes through `attach` is what the command wrote, and a reader that is slow makes
the command wait.
"""

import json
import re
import socket
import struct
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

from agent.executor.supervisor.clock import boot_ms, wall_ms
from agent.executor.supervisor.counters import Counters
from agent.executor.supervisor.files import READ_BYTES
from agent.executor.supervisor.target import Ended, NeverStartedError, Started

_HEADER = struct.Struct(">BxxxI")
_ANSWER_S = 120
# How late we may hear that a container has started. What looks like more was a clock that somebody set.
_CLOCK_MS = 2_000
_ASK_MS = 200
_NOT_RUN_CODES = (126, 127)
_INIT_COMPLAINT = re.compile(rb"\[FATAL tini \(\d+\)\] exec (.+ failed: [^\n]+)\n", re.DOTALL)
# A program's name and what is said around it.
_COMPLAINT_BYTES = 8_192
# The complaint comes in a moment, and nothing is metered so early. A job may say the same words, but who says
# them later has run.
_COMPLAINT_MS = 1_000
# How containers end when the engine takes them with it.
_ENGINES_OWN_CODES = (137, 143, 255)
# The engine notes a kill when it has sent it, and what is killed may end before.
_KILL_TOLD_MS = 2_000
_EPOCH = "1970-01-01T00:00:00Z"


class EngineError(Exception):
    """The engine refused."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class ContainerTarget:
    """A Target that is a container."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self._socket_path = str(spec["socket"])
        self._container = str(spec["container"])
        self._path = f"/containers/{self._container}"
        self._attached: socket.socket | None = None
        self._buffer = b""
        self._start_ms = 0
        self._closed_ms: int | None = None
        self._ask_at_ms = 0
        self._engine_was_away = False
        self._killed = False
        # How its output begins, of both streams; None where a supervisor before us has read it.
        self._first_words: bytes | None = b""
        self._end: Ended | None = None
        self._counters: Counters | None = None

    def start(self) -> Started:
        try:
            # Before the start, so that the first byte is not missed.
            self._attach()
            self._call("POST", f"{self._path}/start")
        except EngineError as error:
            raise NeverStartedError(str(error), unstartable=_is_commands_fault(str(error))) from error
        except OSError as error:
            raise NeverStartedError(f"the engine does not answer: {error}", unstartable=False) from error
        # After the engine says that it runs, not before: the difference is not to be paid.
        self._start_ms = boot_ms()
        return Started(run_id=self._container, start_boot_ms=self._start_ms)

    def resume(self, started: Started) -> None:
        self._first_words = None
        self._start_ms = started.start_boot_ms
        self._look()

    def descriptors(self, *, with_output: bool) -> list[int]:
        return [self._attached.fileno()] if self._attached and with_output else []

    def alarms(self) -> list[int]:
        if self._counters is None:
            self._counters = self._open_counters()
        return self._counters.alarms()

    def read(self, ready: Iterable[int]) -> list[tuple[int, bytes]]:
        if self._counters is not None:
            self._counters.look()
        if self._attached is not None and self._attached.fileno() in ready:
            try:
                data = self._attached.recv(4 * READ_BYTES)
            except OSError:
                data = b""
            if data:
                self._buffer += data
            else:
                self._detach()
        return self._frames()

    def _open_counters(self) -> Counters:
        """After the start, so that nobody waits for it."""
        try:
            return Counters(int(self._state().get("Pid", 0)))
        except (OSError, EngineError):
            return Counters(0)

    def _state(self) -> dict[str, Any]:
        state: dict[str, Any] = json.loads(self._call("GET", f"{self._path}/json"))["State"]
        return state

    def ended(self) -> Ended | None:
        """The engine is asked when the output has ended: nearly always that is the end."""
        now_ms = boot_ms()
        if self._end is None and now_ms >= self._ask_at_ms and self._attached is None:
            self._ask_at_ms = now_ms + _ASK_MS
            self._look()
        return self._end

    def is_drained(self) -> bool:
        return self._attached is None

    def terminate(self) -> None:
        self._kill("SIGTERM")

    def kill(self) -> None:
        self._kill("SIGKILL")

    def clear_up(self) -> bool:
        return True  # the container's processes ended with it

    def _attach(self) -> None:
        connection = self._connect()
        path = f"{self._path}/attach?stream=1&stdout=1&stderr=1"
        connection.sendall(
            f"POST {path} HTTP/1.1\r\nHost: engine\r\nUpgrade: tcp\r\nConnection: Upgrade\r\n\r\n".encode()
        )
        raw = b""
        while b"\r\n\r\n" not in raw:
            data = connection.recv(READ_BYTES)
            if not data:
                break
            raw += data
        head, _, self._buffer = raw.partition(b"\r\n\r\n")
        status = _status(head)
        if status not in (101, 200):
            connection.close()
            raise EngineError(status, _message(self._buffer))
        connection.settimeout(None)
        self._attached = connection

    def _detach(self) -> None:
        if self._attached is not None:
            self._attached.close()
            self._attached = None
        self._closed_ms = boot_ms()

    def _reattach(self) -> None:
        try:
            self._attach()
        except (OSError, EngineError):
            self._detach()

    def _look(self) -> None:
        """What does the engine say, now that the output has ended?"""
        try:
            state = self._state()
        except EngineError as error:
            if error.status == 404:
                self._end = Ended(exit_code=None, run_ms=0, lost="the container was removed")
            return
        except OSError:
            self._engine_was_away = True  # it restarts; it will be asked again
            return
        if state["Running"] or state["Restarting"]:
            # It closed its output and goes on, or the engine came back and found it alive.
            self._reattach()
            return
        if state["StartedAt"].startswith("0001"):
            self._end = Ended(exit_code=None, run_ms=0, lost="the container never started")
            return
        exit_code = int(state["ExitCode"])
        lost = ""
        if not self._killed and not state["OOMKilled"]:
            try:
                lost = self._who_else_ended_it(exit_code)
            except (OSError, ValueError):
                self._engine_was_away = True  # it goes, and took this one along; it will be asked again
                return
        run_ms = self._run_ms(state["StartedAt"], state["FinishedAt"])
        unstartable = self._why_unstartable(exit_code, run_ms)
        counters = self._counters
        notes = self._gaps()
        if counters is not None and counters.forks_refused:
            refused = counters.forks_refused
            notes.append(f"it had all the processes and threads it may have, and was refused {refused} more")
        full = counters.full() if counters is not None else []
        if full:
            notes.append(f"when it ended there was no room left in {' and '.join(full)}")
        self._end = Ended(
            exit_code=None if lost or unstartable else exit_code,
            # What never started has no run time, though its container had some.
            run_ms=0 if unstartable else run_ms,
            out_of_memory=bool(state["OOMKilled"]) or (counters is not None and counters.oom_kills > 0),
            lost=lost,
            unstartable=unstartable,
            note="; ".join(notes),
        )

    def _gaps(self) -> list[str]:
        """Why output may be missing: nobody was attached."""
        away = {"the container engine": self._engine_was_away, "its supervisor": self._first_words is None}
        return [f"{who} was restarted; output written meanwhile may be missing" for who in away if away[who]]

    def _who_else_ended_it(self, exit_code: int) -> str:
        """A command may end by a signal of its own making: an engine that has seen it end has sent none.

        One that is being ended ends its containers first, and answers to the last. One that came after it
        knows of nothing, and may be all that we ever see: it is back before a busy machine lets us look.
        """
        by_signal = exit_code in _ENGINES_OWN_CODES
        if self._first_words is None and not by_signal:
            return ""  # it may have ended in order because the supervisor before us had asked for it
        # Who ends in order when asked to has taken some time for it: nobody else waits here.
        try:
            told = self._told(_KILL_TOLD_MS if by_signal else 0)
        except EngineError:
            return ""  # it won't tell
        if "kill" in told:
            return "the container engine, or somebody who asked it to, ended it"
        if by_signal and "die" not in told:
            return "it was ended by a signal, and the container engine no longer knows by whose"
        return ""

    def _told(self, wait_ms: int) -> set[str]:
        """What the engine remembers of the container's end, and what it yet notes so soon."""
        chosen = quote(json.dumps({"container": [self._container], "event": ["kill", "die"]}))
        # Not since its beginning: where the clock was set back the end is before it, which is refused.
        until_ms = wall_ms() + wait_ms
        span = f"since=1&until={until_ms // 1_000}.{until_ms % 1_000:03}"
        events = self._call("GET", f"/events?{span}&filters={chosen}")
        return {json.loads(event)["Action"] for event in events.splitlines()}

    def _why_unstartable(self, exit_code: int, run_ms: int) -> str:
        """The engine starts its small init, which then finds that there is no such program and says so.

        It says it in several writes, which may come in as many pieces, and nobody else says anything.
        """
        if exit_code not in _NOT_RUN_CODES or run_ms > _COMPLAINT_MS or self._first_words is None:
            return ""
        found = _INIT_COMPLAINT.fullmatch(self._first_words)
        return found.group(1).decode(errors="replace") if found else ""

    def _run_ms(self, began: str, ended: str) -> int:
        """What the engine tells is exact, however late we look, unless the machine's clock was set meanwhile:
        then it is out by so much, or not at all. It is never above what we saw.

        The engine may note a start only when what it started has ended already: then there was no time by its
        record, and the buyer pays by that.
        """
        seen_ms = (self._closed_ms or boot_ms()) - self._start_ms
        told_ms = _between_ms(began, ended)
        set_by_ms = (wall_ms() - boot_ms()) - (_between_ms(_EPOCH, began) - self._start_ms)
        likely = [told_ms] if abs(set_by_ms) <= _CLOCK_MS else [told_ms, told_ms - set_by_ms]
        return max((max(0, ms) for ms in likely if -_CLOCK_MS <= ms <= seen_ms), default=seen_ms)

    def _frames(self) -> list[tuple[int, bytes]]:
        pieces: list[tuple[int, bytes]] = []
        position = 0
        while len(self._buffer) - position >= _HEADER.size:
            stream, length = _HEADER.unpack_from(self._buffer, position)
            begin = position + _HEADER.size
            if len(self._buffer) - begin < length:
                break
            position = begin + length
            pieces += [
                (stream, self._buffer[start : min(start + READ_BYTES, position)])
                for start in range(begin, position, READ_BYTES)
            ]
        self._buffer = self._buffer[position:]
        for _, data in pieces:
            if self._first_words is not None and len(self._first_words) <= _COMPLAINT_BYTES:
                self._first_words += data
        return pieces

    def _kill(self, name: str) -> None:
        self._killed = True
        try:
            self._call("POST", f"{self._path}/kill?signal={name}")
        except (OSError, EngineError):
            return  # it has ended, or the engine is away and will be asked again

    def _call(self, method: str, path: str) -> bytes:
        """A request and its answer. HTTP/1.0, so that the answer ends where the connection does."""
        with self._connect() as connection:
            connection.sendall(f"{method} {path} HTTP/1.0\r\nContent-Length: 0\r\n\r\n".encode())
            raw = b""
            while data := connection.recv(READ_BYTES):
                raw += data
        head, _, body = raw.partition(b"\r\n\r\n")
        status = _status(head)
        if not 200 <= status < 400:
            raise EngineError(status, _message(body))
        return body

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(_ANSWER_S)
        try:
            connection.connect(self._socket_path)
        except OSError:
            connection.close()
            raise
        return connection


def _status(head: bytes) -> int:
    words = head.split(b" ", 2)
    if len(words) < 2 or not words[1].isdigit():
        raise ConnectionError("the engine gave no answer")
    return int(words[1])


def _message(body: bytes) -> str:
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return body.decode(errors="replace")[:500]


def _is_commands_fault(message: str) -> bool:
    """The runtime has only words for it."""
    texts = (
        "executable file not found",
        "no such file or directory",
        "permission denied",
        "exec format error",
    )
    low = message.lower()
    return "exec" in low and any(text in low for text in texts)


def _between_ms(start: str, end: str) -> int:
    return (_moment(end) - _moment(start)) // timedelta(milliseconds=1)


def _moment(text: str) -> datetime:
    """RFC 3339 with up to nine decimals, of which six can be kept."""
    whole, _, decimals = text.removesuffix("Z").partition(".")
    return datetime.fromisoformat(f"{whole}.{decimals[:6].ljust(6, '0')}+00:00")
