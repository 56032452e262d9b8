"""What a heartbeat costs without a market behind it: `bare` TLS sockets, or `grpc` with an empty handler.

    python -m benchmarks.floors bare|grpc SERVER_JSON

Prints `ready PORT`, and serves until SIGTERM. Both speak the contract's own messages and answer as the
coordinator does, from nothing but the message itself.
"""

import asyncio
import json
import signal
import ssl
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import grpc
import grpc.aio

from runtime.channel import SERVER_OPTIONS
from usance.v1 import host_pb2 as h
from usance.v1 import host_pb2_grpc
from usance.v1 import types_pb2 as t

LENGTH_BYTES = 4
BACKLOG = 16_384
_SPEC = t.JobSpec(
    name="a benchmark's",
    image="example.org/image@sha256:" + "0" * 64,
    command=["train"],
    gpus=t.GpuRequest(count=1),
    budget_micro=10**12,
)
_WELCOME = h.SynchronizeResponse(welcome=h.Welcome(host_id="", beat_interval_ms=60_000))


def answers(request: h.SynchronizeRequest) -> list[h.SynchronizeResponse]:
    """All that a floor does."""
    kind = request.WhichOneof("message")
    if kind == "hello":
        return [_WELCOME, h.SynchronizeResponse(desired=h.Desired())]
    if kind == "beat":
        held = [
            h.DesiredAttempt(
                attempt_id=report.attempt_id,
                epoch=report.epoch,
                spec=_SPEC,
                gpu_uuids=[f"GPU-{report.attempt_id}"],
                paid_through_ms=report.run_ms + 600_000,
            )
            for report in request.beat.attempts
        ]
        return [h.SynchronizeResponse(desired=h.Desired(attempts=held))]
    raise ValueError(f"a floor has no answer to {kind}")


class BareServer(asyncio.Protocol):
    """One connection: length, message, length, message."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's are of another class, and can the same.
        self._transport = cast("asyncio.Transport", transport)
        self._buffer = bytearray()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        for message in frames(self._buffer):
            for answer in answers(h.SynchronizeRequest.FromString(message)):
                self._transport.write(framed(answer.SerializeToString()))


def framed(message: bytes) -> bytes:
    return len(message).to_bytes(LENGTH_BYTES, "big") + message


def frames(buffer: bytearray) -> list[bytes]:
    """The whole messages at the front of the buffer, taken out of it."""
    found = []
    while len(buffer) >= LENGTH_BYTES:
        end = LENGTH_BYTES + int.from_bytes(buffer[:LENGTH_BYTES], "big")
        if len(buffer) < end:
            break
        found.append(bytes(buffer[LENGTH_BYTES:end]))
        del buffer[:end]
    return found


class EmptyServicer(host_pb2_grpc.HostServiceServicer):
    async def GetStanding(self, request: Any, context: Any) -> h.GetStandingResponse:  # noqa: ANN401, N802, ARG002
        return h.GetStandingResponse()

    async def SetHold(self, request: Any, context: Any) -> h.SetHoldResponse:  # noqa: ANN401, N802, ARG002
        return h.SetHoldResponse()

    async def RenewCertificate(  # noqa: N802
        self,
        request: h.RenewCertificateRequest,
        context: Any,  # noqa: ANN401
    ) -> h.RenewCertificateResponse:
        raise NotImplementedError("a floor has no certificates")

    async def Synchronize(  # noqa: N802
        self,
        request_iterator: AsyncIterator[h.SynchronizeRequest],
        context: Any,  # noqa: ANN401, ARG002
    ) -> AsyncIterator[h.SynchronizeResponse]:
        async for request in request_iterator:
            for answer in answers(request):
                yield answer


async def _serve_bare(server: dict[str, str], stop: asyncio.Event) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=server["authority_pem"])
    context.verify_mode = ssl.CERT_REQUIRED
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
        file.write(server["certificate_pem"] + server["key_pem"])
        file.flush()
        context.load_cert_chain(file.name)
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(BareServer, "127.0.0.1", 0, ssl=context, backlog=BACKLOG)
    print(f"ready {listener.sockets[0].getsockname()[1]}", flush=True)
    await stop.wait()
    listener.close()


async def _serve_grpc(server: dict[str, str], stop: asyncio.Event) -> None:
    pair = [(server["key_pem"].encode(), server["certificate_pem"].encode())]
    credentials = grpc.ssl_server_credentials(
        pair, server["authority_pem"].encode(), require_client_auth=True
    )
    listener = grpc.aio.server(options=SERVER_OPTIONS)
    host_pb2_grpc.add_HostServiceServicer_to_server(EmptyServicer(), listener)
    port = listener.add_secure_port("127.0.0.1:0", credentials)
    await listener.start()
    print(f"ready {port}", flush=True)
    await stop.wait()
    await listener.stop(None)


async def _main(kind: str, server: dict[str, str]) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await (_serve_bare if kind == "bare" else _serve_grpc)(server, stop)


def run(main: Any) -> None:  # noqa: ANN401 - a coroutine of any result
    """On uvloop, which is what a bare server would be built on."""
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)


if __name__ == "__main__":
    told = json.loads(Path(sys.argv[2]).read_text())
    # gRPC as the coordinator runs it: on the default loop.
    (run if sys.argv[1] == "bare" else asyncio.run)(_main(sys.argv[1], told))
