"""Connections that say nothing: what a thousand of them cost the coordinator, beside a bare gRPC server.

    python -m benchmarks.strangers [--quick] [--json]

Each ends its handshakes of TLS and of HTTP/2 and then asks for nothing. Memory and processor time are those
of the server's process alone. The bare server looks at certificates, so all have one.
"""

import json
import socket
import ssl
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks import report
from benchmarks.ground import Ground
from benchmarks.processes import Floor, cpu_s, rss_bytes
from benchmarks.report import Figure
from runtime.channel import SERVER_NAME
from tests.rig.parts import wait_until

_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4" + bytes(5)


def client(folder: Path) -> ssl.SSLContext:
    fleet, path = json.loads((folder / "fleet.json").read_text()), folder / "client.pem"
    path.write_text(fleet["key_pem"] + fleet["agents"][0]["certificate_pem"])
    context = ssl.create_default_context(cadata=fleet["authority_pem"])
    context.load_cert_chain(path)
    context.set_alpn_protocols(["h2"])
    return context


def connections(address: str, context: ssl.SSLContext, count: int, stack: ExitStack) -> None:
    host, _, port = address.rpartition(":")
    for _ in range(count):
        plain = socket.create_connection((host, int(port)), timeout=30)
        connection = stack.enter_context(context.wrap_socket(plain, server_hostname=SERVER_NAME))
        connection.sendall(_HELLO)
        connection.recv(64)


def measured(
    pid: int, address: str, context: ssl.SSLContext, count: int, idle_s: float
) -> tuple[float, float, float]:
    """KiB and ms of a core for each connection; and ms of a core for each second that all of them idle."""
    with ExitStack() as stack:
        # What the first one makes the server load is not theirs.
        connections(address, context, 20, stack)
        memory, used = rss_bytes(pid), cpu_s(pid)
        connections(address, context, count, stack)
        made = cpu_s(pid)
        end = time.monotonic() + idle_s
        wait_until(lambda: time.monotonic() >= end, "they have idled", deadline_s=idle_s + 10)
        kib = (rss_bytes(pid) - memory) / 1024 / count
        return kib, (made - used) * 1_000 / count, (cpu_s(pid) - made) * 1_000 / idle_s


def run(count: int, idle_s: float) -> list[Figure]:
    with tempfile.TemporaryDirectory() as name:
        ground = Ground(folder=Path(name), beat_interval_ms=5_000, reconnect_window_ms=60_000)
        ground.prepare(1)
        context = client(ground.folder)
        floor = Floor("grpc", ground.folder)
        try:
            bare = measured(floor.pid, floor.target, context, count, idle_s)
        finally:
            floor.stop()
        pid = ground.start()
        try:
            ours = measured(pid, ground.market, context, count, idle_s)
        finally:
            ground.stop()
    names = ("KiB for each", "ms of a core to make each", "ms of a core a second, all idle")
    return [
        Figure(figure=what, ours=mine, floor=theirs, ratio=mine / theirs if theirs else None)
        for what, mine, theirs in zip(names, ours, bare, strict=True)
    ]


def main() -> int:
    given = report.arguments(__doc__).parse_args()
    figures = run(100, 2.0) if given.quick else run(1_000, 20.0)
    report.show("strangers", figures, as_json=given.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
