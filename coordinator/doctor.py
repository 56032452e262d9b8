"""Looks at a coordinator and its machine, changing nothing. What it means, the domain says."""

import shutil
import socket
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from coordinator import identity
from coordinator.domain.checkup import (
    AuthorityFacts,
    DatabaseFacts,
    DoorFacts,
    Facts,
    MachineFacts,
    SecretFacts,
)
from coordinator.doors import trouble_with
from coordinator.settings import LAST_BACKUP_NAME, Settings, config_path, split_address
from coordinator.store import migrate
from coordinator.store.seat import Seat
from ledger.engine import make_engine
from runtime.channel import client_options
from runtime.clock import Clock, clock_synchronized

_ANSWER_S = 5.0
_CONNECT_S = "5"
_HERE = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 - whom to call when all are listened on


def look(settings: Settings, settings_error: str, clock: Clock) -> Facts:
    folder = settings.data_dir
    path = config_path(folder)
    facts = Facts(
        settings_path=str(path) if path.exists() else f"no {path}: every setting has its default",
        settings_error=settings_error,
        metrics=settings.metrics,
        machine=_machine(folder),
    )
    if not (folder / "ca.pem").exists():
        return facts
    seat = Seat(folder, settings.database_url)
    holder = seat.holder() if seat.is_taken_here() else ""
    return replace(
        facts,
        secrets=tuple(_secret(path) for path in _secrets(settings)),
        authority=_authority(settings, clock),
        database=_database(settings.database_url),
        holder=holder,
        backup_hours=_backup_hours(folder, clock),
        doors=tuple(_door(settings, name, is_served=bool(holder)) for name in ("market", "hosts")),
    )


def _machine(folder: Path) -> MachineFacts:
    there = folder
    while not there.exists():
        there = there.parent
    return MachineFacts(
        folder=str(folder),
        folder_mode=folder.stat().st_mode & 0o777 if folder.exists() else None,
        free_bytes=shutil.disk_usage(there).free,
        clock_synchronized=clock_synchronized(),
    )


def _secrets(settings: Settings) -> tuple[Path, ...]:
    """Those that are files."""
    kept = (settings.ca_key_source, settings.secrets_key_source)
    return settings.data_dir / "token.key", *(source.path for source in kept if not source.command)


def _secret(path: Path) -> SecretFacts:
    mode = None
    with suppress(FileNotFoundError):
        mode = path.stat().st_mode & 0o777
    return SecretFacts(name=str(path), mode=mode)


def _authority(settings: Settings, clock: Clock) -> AuthorityFacts:
    folder = settings.data_dir
    try:
        left = identity.days_left(folder, clock.wall_ms(), settings.ca_key_source)
        return AuthorityFacts(days_left=left, is_rotating=identity.is_rotating(folder))
    except (OSError, ValueError, TypeError) as error:
        return AuthorityFacts(error=str(error))


def _database(text: str) -> DatabaseFacts:
    url = make_url(text)
    shown = url.render_as_string(hide_password=True)
    if url.get_backend_name() == "sqlite":
        # To open it would make it.
        if not Path(url.database or "").exists():
            return DatabaseFacts(url=shown, error="the file is not there")
    elif "connect_timeout" not in url.query:
        url = url.update_query_dict({"connect_timeout": _CONNECT_S})
    try:
        engine = make_engine(url.render_as_string(hide_password=False))
        try:
            revision = migrate.current(engine)
        finally:
            engine.dispose()
    except SQLAlchemyError as error:
        reason = getattr(error, "orig", None) or error
        return DatabaseFacts(url=shown, error=" ".join(str(reason).split()))
    except ValueError as error:
        return DatabaseFacts(url=shown, error=str(error))
    return DatabaseFacts(
        url=shown,
        revision=revision,
        wanted=migrate.head(),
        is_known=revision is None or migrate.knows(revision),
    )


def _backup_hours(folder: Path, clock: Clock) -> int | None:
    """Whoever makes a backup otherwise, with pg_dump or of the disk, touches the file."""
    try:
        made_s = (folder / LAST_BACKUP_NAME).stat().st_mtime
    except OSError:
        return None
    return (clock.wall_ms() - int(made_s * 1_000)) // 3_600_000


def _door(settings: Settings, name: str, *, is_served: bool) -> DoorFacts:
    address = getattr(settings, name)
    if not is_served:
        error = trouble_with(address).removeprefix(":").strip()
    elif name == "market":
        error = answer(address, settings.data_dir)
    else:
        error = _knock(address)
    return DoorFacts(name=name, address=address, public=getattr(settings, f"{name}_public"), error=error)


def answer(address: str, folder: Path) -> str:
    """Ask as everybody may who trusts our authority; empty: it serves."""
    credentials = grpc.ssl_channel_credentials((folder / "ca.pem").read_bytes())
    with grpc.secure_channel(_called(address), credentials, client_options()) as channel:
        try:
            check = channel.unary_unary(
                "/grpc.health.v1.Health/Check",
                request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
                response_deserializer=health_pb2.HealthCheckResponse.FromString,
            )
            answer = check(health_pb2.HealthCheckRequest(), timeout=_ANSWER_S)
        except grpc.RpcError as error:
            return f"no answer: {error.details()}"
    serves = answer.status == health_pb2.HealthCheckResponse.SERVING
    return "" if serves else "it says that it does not serve"


def _knock(address: str) -> str:
    """Agents alone are answered there, but everybody can tell whether somebody listens."""
    try:
        socket.create_connection(_place(address), timeout=_ANSWER_S).close()
    except OSError as error:
        return f"no answer: {error.strerror or error}"
    return ""


def _place(address: str) -> tuple[str, int]:
    host, port = split_address("hosts", _called(address))
    return host.strip("[]"), port


def _called(address: str) -> str:
    host, _, port = address.rpartition(":")
    return f"{_HERE.get(host, host)}:{port}"
