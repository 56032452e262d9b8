"""The `usance` command as a process that goes on beside the test."""

import itertools
import subprocess
import threading

from tests.support.market import RUN_S, WholeMarket, program

_NUMBERS = itertools.count(1)


class Running:
    """One of its commands. Its stderr goes to a file, so neither can block it."""

    def __init__(self, market: WholeMarket, person: str, *arguments: str) -> None:
        self._errors = market.folder / f"stderr-{next(_NUMBERS)}"
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                [program("usance"), *arguments],
                env=market.environment(person),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        # A test that waits for output in vain ends by this, with what there was to be read.
        self._watchdog = threading.Timer(RUN_S, self._process.kill)
        self._watchdog.start()
        assert self._process.stdout is not None
        self._stdout = self._process.stdout
        # Its stdout as far as it was read.
        self.out = b""

    def until_line(self, line: str) -> None:
        for found in self._stdout:
            self.out += found
            if found.decode().strip() == line:
                return
        raise AssertionError(f"it ended before {line!r}: {self.err}")

    def line(self) -> bytes:
        """The next one."""
        return self._stdout.readline()

    def until_size(self, size: int) -> None:
        self.out += self._stdout.read(size - len(self.out))

    def end(self) -> int:
        """Its exit code."""
        self.out += self._stdout.read()
        self._stdout.close()
        code = self._process.wait()
        self._watchdog.cancel()
        return code

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._watchdog.cancel()
        self._stdout.close()

    @property
    def err(self) -> str:
        return self._errors.read_text()
