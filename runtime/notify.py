"""Tells systemd how the agent is, where systemd has started it; otherwise nothing is told to nobody."""

import logging
import os
import socket

from runtime.clock import Clock

log = logging.getLogger(__name__)

# Twice in the time after which systemd takes us for stuck.
_BEATS = 2


def tell(*lines: str) -> None:
    """`READY=1`, `STATUS=…`; see sd_notify(3)."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    # A name that begins with "@" is one of the kernel's own, not of a file.
    place = "\0" + address[1:] if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as connection:
        try:
            connection.connect(place)
            connection.sendall("\n".join(lines).encode())
        except OSError as error:
            log.warning("systemd can't be told that %s: %s", lines[0], error)


def watchdog_ms() -> int | None:
    """How often systemd wants to hear that we go on; None where it does not listen."""
    wanted = os.environ.get("WATCHDOG_USEC", "")
    meant_for = os.environ.get("WATCHDOG_PID", "")
    if not wanted.isdigit() or (meant_for and meant_for != str(os.getpid())):
        return None
    return int(wanted) // 1_000


async def keep_telling(clock: Clock) -> None:
    """For ever, from the event loop: where that hangs, systemd hears nothing and starts us again."""
    every_ms = watchdog_ms()
    while True:
        if every_ms is None:
            await clock.sleep_ms(3_600_000)
        else:
            tell("WATCHDOG=1")
            await clock.sleep_ms(max(1, every_ms // _BEATS))
