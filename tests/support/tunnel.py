"""A line on which every packet takes its time: two ends of a tunnel, and a thread that carries between."""

import fcntl
import heapq
import itertools
import os
import selectors
import struct
import threading
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from tests.support.through import made_inside

if TYPE_CHECKING:
    from tests.support.nets import Machine

_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
_PACKET_BYTES = 65_536
# As a line of so much delay has on its way at most; what is more is lost.
_ON_WAY_MAX = 2_000


class Tunnel:
    def __init__(self, ends: tuple[int, int], delay_ms: int) -> None:
        self._ends = ends
        self._delay_s = delay_ms / 1_000
        self._wake_in, self._wake_out = os.pipe()
        self._thread = threading.Thread(target=self._carry, name="tunnel")
        self._thread.start()

    def close(self) -> None:
        """The devices go, and with them the ways that lead through them."""
        os.write(self._wake_out, b"x")
        self._thread.join()
        for descriptor in (*self._ends, self._wake_in, self._wake_out):
            os.close(descriptor)

    def _carry(self) -> None:
        one, other = self._ends
        on_way: list[tuple[float, int, int, bytes]] = []
        order = itertools.count()
        with selectors.DefaultSelector() as chosen:
            chosen.register(one, selectors.EVENT_READ, other)
            chosen.register(other, selectors.EVENT_READ, one)
            chosen.register(self._wake_in, selectors.EVENT_READ, None)
            while True:
                now_s = time.monotonic()
                while on_way and on_way[0][0] <= now_s:
                    _, _, end, packet = heapq.heappop(on_way)
                    with suppress(OSError):
                        os.write(end, packet)
                left_s = on_way[0][0] - now_s if on_way else None
                for key, _ in chosen.select(left_s):
                    if key.data is None:
                        return
                    with suppress(OSError):
                        packet = os.read(key.fd, _PACKET_BYTES)
                        if len(on_way) < _ON_WAY_MAX:
                            due_s = time.monotonic() + self._delay_s
                            heapq.heappush(on_way, (due_s, next(order), key.data, packet))


def open_tunnel(hub: "Machine", machine: "Machine", number: int, delay_ms: int) -> Tunnel:
    """From now on the two reach each other by it alone."""
    ends = []
    for end, name, peer in ((machine, "slow", hub), (hub, f"slow{number}", machine)):
        ends.append(made_inside(end.namespace, partial(_device, name)))
        end.run("ip", "link", "set", name, "up")
        end.run("ip", "route", "add", f"{peer.address}/32", "dev", name, "src", end.address)
    return Tunnel((ends[0], ends[1]), delay_ms)


def _device(name: str) -> int:
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH", name.encode(), _IFF_TUN | _IFF_NO_PI))
    return descriptor
