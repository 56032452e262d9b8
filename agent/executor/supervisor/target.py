"""What a supervisor asks of the command it stands beside."""

from collections.abc import Iterable
from typing import NamedTuple, Protocol


class NeverStartedError(Exception):
    """The command can't be started."""

    def __init__(self, detail: str, *, unstartable: bool) -> None:
        super().__init__(detail)
        # The fault is the command's: no such program, not executable.
        self.unstartable = unstartable


class Started(NamedTuple):
    """A command that runs."""

    run_id: str
    start_boot_ms: int


class Ended(NamedTuple):
    """A command's end. `lost` says that whoever ran it lost it, and the rest is guesswork; `unstartable`,
    that there was no command to run after all; `note` is what else a person should know."""

    exit_code: int | None
    run_ms: int
    out_of_memory: bool = False
    lost: str = ""
    unstartable: str = ""
    note: str = ""


class Target(Protocol):
    """One command. Everything here returns at once."""

    def start(self) -> Started:
        """Raises NeverStartedError."""
        ...

    def resume(self, started: Started) -> None:
        """Be with a command that a supervisor before us started."""
        ...

    def descriptors(self, *, with_output: bool) -> list[int]:
        """What to wait for."""
        ...

    def alarms(self) -> list[int]:
        """What else to wait for: something urgent on them makes `read` be called."""
        ...

    def read(self, ready: Iterable[int]) -> list[tuple[int, bytes]]:
        """Output (stream, bytes) that is there."""
        ...

    def ended(self) -> Ended | None: ...

    def is_drained(self) -> bool:
        """After the end: was all output read?"""
        ...

    def terminate(self) -> None:
        """Ask it to end."""
        ...

    def kill(self) -> None: ...

    def clear_up(self) -> bool:
        """After the end: nothing that the command started outlives it. Says whether that is so now."""
        ...
