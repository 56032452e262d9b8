"""Starts supervisors: warm, by a spawner that forks them, or cold where there is none."""

import asyncio
import os
import socket
import subprocess
import sys
from pathlib import Path

import agent
from runtime.clock import Clock

_ROOT = str(Path(agent.__file__).parent.parent)
# Without site-packages and the caller's environment: they need neither, start sooner and stay small.
_PYTHON = (sys.executable, "-I", "-S", "-c")
_COLD = (
    "import sys; sys.path.append(sys.argv[1]); "
    "from agent.executor.supervisor.main import main; main(sys.argv[2], int(sys.argv[3]))"
)
_WARM = "import sys; sys.path.append(sys.argv[1]); from agent.executor.supervisor.spawner import main; main()"
_READ_BYTES = 4_096


class News:
    """What a supervisor tells the agent that started it: that something has changed, and its own end."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._loop = asyncio.get_running_loop()
        self._waiting: set[asyncio.Future[None]] = set()
        # How often we heard of it. Remember it before looking, and nothing can come in between unnoticed.
        self.count = 0
        # The supervisor is gone, or never came.
        self.ended = False
        self._loop.add_reader(descriptor, self._read)

    async def after(self, count: int, clock: Clock, longest_ms: int) -> None:
        """Until there is something newer than the count, or that long."""
        if self.count != count:
            return
        told = self._loop.create_future()
        self._waiting.add(told)
        timer = asyncio.ensure_future(clock.sleep_ms(longest_ms))
        try:
            await asyncio.wait({told, timer}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._waiting.discard(told)
            told.cancel()
            timer.cancel()

    def close(self) -> None:
        if not self.ended:
            self.ended = True
            if not self._loop.is_closed():
                self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)

    def _read(self) -> None:
        try:
            told = os.read(self._descriptor, _READ_BYTES)
        except BlockingIOError:
            return
        if not told:
            self.close()
        self.count += 1
        for future in self._waiting:
            if not future.done():
                future.set_result(None)


class Launcher:
    """Has supervisors started. They belong to nobody: the spawner's end, and ours, is not theirs."""

    def __init__(self) -> None:
        self._spawner: subprocess.Popen[bytes] | None = None
        self._requests: socket.socket | None = None
        # Started from nothing they are our own children, to be reaped.
        self._cold: list[subprocess.Popen[bytes]] = []

    def warm_up(self) -> None:
        """Have a spawner, in a moment."""
        if self._spawner is not None and self._spawner.poll() is None:
            return
        self.drop_spawner()
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its:
            ours.settimeout(0)
            try:
                self._spawner = subprocess.Popen(
                    [*_PYTHON, _WARM, _ROOT],
                    stdin=its.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                    cwd="/",
                    # All symbols are found once, here, instead of again in each supervisor.
                    env={"LD_BIND_NOW": "1"},
                )
            except OSError:
                ours.close()  # as when processes or memory are short; it is tried again with the next run
            else:
                self._requests = ours

    def launch(self, folder: Path, *, cold: bool = False) -> News:
        """Have a supervisor for the run in this folder. Nothing tells whether it comes but its news.

        Should two come for one run, the second finds the first's lock and goes.
        """
        ours, its = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        news = News(ours)
        try:
            if cold or not self._request(folder, its):
                self._start(folder, its)
        except BaseException:
            news.close()
            raise
        finally:
            os.close(its)
        return news

    def drop_spawner(self) -> None:
        """Whatever was asked of it and is not done will not be done."""
        if self._requests is not None:
            self._requests.close()
            self._requests = None
        if self._spawner is not None:
            self._spawner.kill()
            self._spawner.wait()
            self._spawner = None

    def close(self) -> None:
        """Supervisors go on without us."""
        self.drop_spawner()
        for process in self._cold:
            if process.poll() is None:
                # Popen would complain of it when it is collected.
                process.returncode = 0
        self._cold.clear()

    def _request(self, folder: Path, news: int) -> bool:
        """Ask the spawner. False where there is none that listens."""
        if self._requests is None:
            return False
        try:
            socket.send_fds(self._requests, [os.fsencode(folder)], [news])
        except OSError:
            return False  # it is dead, or so busy that its queue is full
        return True

    def _start(self, folder: Path, news: int) -> None:
        self._cold = [process for process in self._cold if process.poll() is None]
        with (folder / "supervisor.log").open("ab") as log:
            process = subprocess.Popen(
                [*_PYTHON, _COLD, _ROOT, str(folder), str(news)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd="/",
                env={},
                pass_fds=(news,),
            )
        self._cold.append(process)
