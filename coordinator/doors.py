"""The two addresses: people come in by one, agents by the other."""

import asyncio
import errno
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import grpc
import grpc.aio

from coordinator.settings import SettingsError, split_address
from runtime.channel import SERVER_OPTIONS


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What a connection may cost us before anybody has said who they are."""

    connections_max: int
    handshake_ms_max: int
    idle_ms: int
    message_bytes_max: int

    @property
    def options(self) -> list[tuple[str, int]]:
        return [
            ("grpc.max_allowed_incoming_connections", self.connections_max),
            ("grpc.server_handshake_timeout_ms", self.handshake_ms_max),
            ("grpc.max_connection_idle_ms", self.idle_ms),
            ("grpc.max_receive_message_length", self.message_bytes_max),
        ]


class Door:
    """Bound, then opened. Closed, it may be opened again: it is another server at the same address."""

    def __init__(
        self,
        name: str,
        address: str,
        credentials: grpc.ServerCredentials,
        interceptors: Sequence[grpc.aio.ServerInterceptor],
        bounds: Bounds,
    ) -> None:
        self._name = name
        self._host, self._port = split_address(name, address)
        self._credentials = credentials
        self._interceptors = interceptors
        # Of two for one thing gRPC takes the first.
        self._options = list({**dict(SERVER_OPTIONS), **dict(bounds.options)}.items())
        self._bound: grpc.aio.Server | None = None
        # Those that were closed with some grace too: it may be shortened.
        self._opened: list[grpc.aio.Server] = []

    @property
    def port(self) -> int:
        return self._port

    @property
    def address(self) -> str:
        return f"{self._host}:{self._port}"

    def must_be_free(self) -> None:
        """We could listen beside whoever listens there, and each of us would have half of the callers."""
        trouble = trouble_with(self.address)
        if trouble:
            raise SettingsError(f"{self._name}: {self.address}{trouble}")

    @property
    def is_open(self) -> bool:
        return self._bound is None and bool(self._opened)

    def bind(self) -> None:
        """From now on connections come in, and wait; port 0 lets the system choose."""
        self._bound = grpc.aio.server(interceptors=self._interceptors, options=self._options)
        self._port = self._bound.add_secure_port(self.address, self._credentials)

    async def open(self, register: Callable[[grpc.aio.Server], None]) -> None:
        if self._bound is None:
            self.bind()
        assert self._bound is not None, "it has just been bound"
        server, self._bound = self._bound, None
        register(server)
        await server.start()
        self._opened.append(server)

    async def close(self, grace_ms: int) -> None:
        """Nobody comes in any more; what is under way may take so long."""
        await asyncio.gather(*(server.stop(grace_ms / 1_000) for server in self._opened))


def trouble_with(address: str) -> str:
    """What keeps a program from having an address for itself; empty: nothing."""
    host, port = split_address("address", address)
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        return f": {error.strerror}"
    for family, kind, _, _, place in found:
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(place)
            except OSError as error:
                return " is in use" if error.errno == errno.EADDRINUSE else f": {error.strerror}"
    return ""
