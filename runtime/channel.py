"""gRPC options, once for all programs. Each was measured; docs/decisions/0001-transport.md says why."""

import os

# gRPC's fork handlers stall a process that starts children, and ours exec at once. It must be set before
# grpc is imported anywhere.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

import grpc
import grpc.aio

# What anybody may send at once, and what people are answered: whatever is longer comes in pages.
MESSAGE_BYTES_MAX = 1 << 20
# What an agent is told at once: the orders of all that it holds, each of at most some 150 KB.
ORDERS_BYTES_MAX = 16 << 20
KEEPALIVE_MS = 20_000
# The option named keepalive_timeout_ms alone has no effect; ping_timeout_ms has.
PING_TIMEOUT_MS = 5_000

_SHARED: list[tuple[str, int]] = [
    ("grpc.keepalive_time_ms", KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", PING_TIMEOUT_MS),
    ("grpc.http2.ping_timeout_ms", PING_TIMEOUT_MS),
]

SERVER_OPTIONS: list[tuple[str, int]] = [
    *_SHARED,
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", ORDERS_BYTES_MAX),
    # Idle streams may be pinged: without this the server cuts a client which keeps its NAT entry warm.
    ("grpc.http2.min_ping_interval_without_data_ms", KEEPALIVE_MS // 2),
    # The default drops streams when thousands of agents come back at once.
    ("grpc.server.max_pending_requests", 100_000),
    ("grpc.server.max_pending_requests_hard_limit", 100_000),
    # A coordinator that takes over listens beside the one that it relieves.
    ("grpc.so_reuseport", 1),
]

CHANNEL_OPTIONS: list[tuple[str, int]] = [
    *_SHARED,
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.initial_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 10_000),
]

# The coordinator's certificate is issued for this name, whatever address it is reached at.
SERVER_NAME = "coordinator.usance"


def client_options(*, receive_bytes_max: int = MESSAGE_BYTES_MAX) -> list[tuple[str, str | int]]:
    """Options of a channel to a coordinator whose authority we know."""
    return [
        *CHANNEL_OPTIONS,
        ("grpc.max_receive_message_length", receive_bytes_max),
        ("grpc.ssl_target_name_override", SERVER_NAME),
    ]


def open_channel(
    target: str, authority_pem: bytes, key_pem: bytes | None = None, certificate_pem: bytes | None = None
) -> grpc.aio.Channel:
    """An asyncio channel over TLS; with key and certificate, over mutual TLS."""
    credentials = grpc.ssl_channel_credentials(authority_pem, key_pem, certificate_pem)
    # Only agents have keys.
    most = MESSAGE_BYTES_MAX if key_pem is None else ORDERS_BYTES_MAX
    return grpc.aio.secure_channel(target, credentials, options=client_options(receive_bytes_max=most))
