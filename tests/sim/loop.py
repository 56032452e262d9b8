"""An event loop on virtual time, and processes that can be killed between any two of its steps.

Nothing waits: when nobody can go on, the clock moves to the next timer. What runs in a thread elsewhere runs
in line here, so a run is a function of its seed alone. Everything that a task starts belongs to the task's
process; what belongs to a dead process is never called again, as after a SIGKILL: no `finally` runs.
"""

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

PROCESS: contextvars.ContextVar["Process | None"] = contextvars.ContextVar("process", default=None)


class Killed(BaseException):
    """The process that was at work died at this very place."""


class Process:
    """A program that runs on a machine of the simulation."""

    def __init__(self, name: str, loop: "VirtualLoop") -> None:
        self.name = name
        self.loop = loop
        self.alive = True
        self.born_s = loop.time()
        self.steps_left: int | None = None
        self.writes_left: int | None = None
        self.on_death: list[Callable[[], None]] = []
        self._context = contextvars.Context()
        self._context.run(PROCESS.set, self)

    def spawn(self, work: Coroutine[Any, Any, Any], name: str = "") -> asyncio.Task[Any]:
        """A task of this process."""
        context = self._context.copy()
        task = self.loop.create_task(work, name=name, context=context)
        self.loop.keep.append(task)
        return task

    def run(self, function: Callable[..., Any], *args: object) -> Any:
        """Call in the name of this process."""
        return self._context.copy().run(function, *args)

    def kill(self) -> None:
        if self.alive:
            self.alive = False
            for told in self.on_death:
                self.loop.world(told)

    def step(self) -> bool:
        """One more step is about to be taken; may it?"""
        if self.alive and self.steps_left is not None:
            self.steps_left -= 1
            if self.steps_left < 0:
                self.kill()
        return self.alive

    def write(self) -> None:
        """Something is about to be written, or was just written: a place to die at."""
        if self.alive and self.writes_left is not None:
            self.writes_left -= 1
            if self.writes_left < 0:
                self.kill()
        if not self.alive:
            raise Killed


class _Future(asyncio.Future[Any]):
    """Sets of them are walked in the order in which they were made, in every run."""

    serial = 0

    def __hash__(self) -> int:
        return self.serial


class _Task(asyncio.Task[Any]):
    serial = 0

    def __hash__(self) -> int:
        return self.serial


class _Timer:
    """What the base class takes for a selector: it sees how long nobody has anything to do."""

    def __init__(self, loop: "VirtualLoop") -> None:
        self._loop = loop

    def select(self, timeout: float | None) -> list[object]:
        if timeout is None:
            raise RuntimeError("everybody waits for ever")
        if timeout > 0:
            self._loop.skip(timeout)
        return []


class VirtualLoop(asyncio.BaseEventLoop):
    def __init__(self) -> None:
        super().__init__()
        self._now_s = 0.0
        self._selector = _Timer(self)
        self._clock_resolution = 1e-7
        self._serial = 0
        self._over = False
        self.steps = 0
        # Tasks of the dead are kept to the end: collected earlier, their coroutines would be closed and run.
        self.keep: list[asyncio.Task[Any]] = []
        # How long what runs in a thread takes; says 0 where nothing is to be delayed.
        self.thread_delay_s: Callable[[], float] = lambda: 0.0
        self.set_task_factory(self._make_task)

    def time(self) -> float:
        return self._now_s

    def skip(self, timeout: float) -> None:
        scheduled = self._scheduled  # type: ignore[attr-defined]
        self._now_s = max(self._now_s, scheduled[0]._when) if scheduled else self._now_s + timeout

    def world(self, function: Callable[..., Any], *args: object) -> None:
        """Call soon, in nobody's name."""
        self.call_soon(function, *args, context=contextvars.Context())

    def world_later(self, delay_s: float, function: Callable[..., Any], *args: object) -> asyncio.TimerHandle:
        timer: asyncio.TimerHandle = self.call_at(
            self._now_s + delay_s, function, *args, context=contextvars.Context()
        )
        return timer

    def call_soon(  # type: ignore[override]
        self, callback: Any, *args: Any, context: contextvars.Context | None = None
    ) -> Any:
        if self._over:
            return asyncio.Handle(callback, args, self, context)
        context = context if context is not None else contextvars.copy_context()
        return super().call_soon(self._step, callback, args, context.get(PROCESS), context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: Any = None
    ) -> Any:
        if self._over:
            return asyncio.TimerHandle(when, callback, args, self, context)
        context = context if context is not None else contextvars.copy_context()
        return super().call_at(when, self._step, callback, args, context.get(PROCESS), context=context)

    call_soon_threadsafe = call_soon  # type: ignore[assignment]

    def _step(self, callback: Any, args: tuple[Any, ...], process: Process | None) -> None:
        self.steps += 1
        if process is None or process.step():
            callback(*args)

    def create_future(self) -> asyncio.Future[Any]:
        future = _Future(loop=self)
        self._serial += 1
        future.serial = self._serial
        return future

    def _make_task(self, loop: Any, work: Any, **options: Any) -> asyncio.Task[Any]:
        task = _Task.__new__(_Task)
        self._serial += 1
        task.serial = self._serial
        task.__init__(work, loop=loop, **options)  # type: ignore[misc]
        self.keep.append(task)
        return task

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Any, *args: Any
    ) -> Any:
        """In line, after a while; whoever is killed in it never sees it return."""
        future = self.create_future()

        def work() -> None:
            process = PROCESS.get()
            try:
                answer = func(*args)
            except Killed:
                return
            except Exception as error:  # noqa: BLE001 - handed on, as a thread would
                if (process is None or process.alive) and not future.done():
                    future.set_exception(error)
                return
            if (process is None or process.alive) and not future.done():
                future.set_result(answer)

        self.call_later(self.thread_delay_s(), work)
        return future

    def _process_events(self, event_list: Any) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody waits in a real selector."""

    def _asyncgen_finalizer_hook(self, agen: Any) -> None:
        """What the dead left open stays so."""

    def forget(self) -> None:
        """After the last step: what is left is closed, and nothing that it asks for is ever run."""
        self._over = True
        for task in self.keep:
            task._log_destroy_pending = False  # type: ignore[attr-defined]
            with suppress(BaseException):
                task.get_coro().close()
        self.keep.clear()
        self.close()
        self._ready.clear()  # type: ignore[attr-defined]
        self._scheduled.clear()  # type: ignore[attr-defined]
