"""Where the coordinator is and who we are: options first, then the environment, then the profile file.

The file holds a secret, so it is the owner's alone (0600) and is replaced whole.
"""

import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cli.connection import Connection
from cli.errors import WrongUse

_MARKET_PORT = "the coordinator's market port, like market.example.org:7410"


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line said; None where it said nothing."""

    server: str | None = None
    token_file: Path | None = None
    ca: Path | None = None


def profile_path(environment: Mapping[str, str]) -> Path:
    chosen = environment.get("USANCE_PROFILE")
    if chosen:
        return Path(chosen)
    base = environment.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "usance" / "profile.toml"


def load(options: Options, environment: Mapping[str, str]) -> Connection:
    """The connection to use. Raises WrongUse saying what lacks and the ways to give it."""
    path = profile_path(environment)
    stored = _read_stored(path)
    server = options.server or environment.get("USANCE_SERVER") or stored.get("server")
    token = (
        _read(options.token_file, "--token-file").decode(errors="replace").strip()
        if options.token_file
        else environment.get("USANCE_TOKEN") or stored.get("token")
    )
    authority = options.ca or environment.get("USANCE_CA")
    authority_pem = (
        _read(Path(authority), "--ca or USANCE_CA") if authority else stored.get("authority_pem", "").encode()
    )
    if not server:
        raise WrongUse(f"no coordinator named: run `usance login`, or set USANCE_SERVER to {_MARKET_PORT}")
    if not token:
        raise WrongUse("no token: run `usance login`, or set USANCE_TOKEN")
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise WrongUse("the token holds characters that no token has; was something else pasted?")
    if not authority_pem:
        raise WrongUse(
            "no authority to check the coordinator by: run `usance login`, or set USANCE_CA to the ca.pem "
            "that the operator gave you"
        )
    return Connection(target=check_server(server), token=token, authority_pem=authority_pem)


def check_server(server: str) -> str:
    host, colon, port = server.rpartition(":")
    if not host or not colon or not port.isdecimal():
        raise WrongUse(f"{server!r} is no address; write {_MARKET_PORT}")
    return server


def save(path: Path, connection: Connection) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # A JSON string is a TOML basic string as long as it is ASCII.
    lines = [
        "# Written by `usance login`. Holds a secret: keep it to yourself.",
        f"server = {json.dumps(connection.target)}",
        f"token = {json.dumps(connection.token)}",
        f"authority_pem = {json.dumps(connection.authority_pem.decode())}",
    ]
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(
        os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8"
    ) as file:
        file.write("\n".join(lines) + "\n")
    fresh.replace(path)


def _read_stored(path: Path) -> dict[str, str]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise WrongUse(
            f"the profile {path} can't be read: {error}; remove it and run `usance login`"
        ) from error
    return {name: value for name, value in content.items() if isinstance(value, str)}


def _read(path: Path, meant: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise WrongUse(f"{meant}: {path} can't be read: {error.strerror}") from error
