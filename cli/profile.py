"""Where the coordinator is and who we are: options first, then the environment, then a profile of the file.

The file holds secrets, so it is the owner's alone (0600), and it is replaced whole, by one program at a time:
a lock stands beside it.
"""

import fcntl
import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from cli.connection import Connection, SessionTokens
from cli.errors import WrongUse

DEFAULT = "default"
_MARKET_PORT = "the coordinator's market port, like market.example.org:7410"
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line said; None where it said nothing."""

    server: str | None = None
    token_file: Path | None = None
    ca: Path | None = None
    profile: str | None = None


@dataclass(frozen=True, kw_only=True)
class Profiles:
    """What the file holds. `current` is the one that counts where none is named."""

    current: str = DEFAULT
    by_name: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def profile_file(environment: Mapping[str, str]) -> Path:
    chosen = environment.get("USANCE_PROFILE_FILE")
    if chosen:
        return Path(chosen)
    base = environment.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "usance" / "profiles.toml"


def profile_name(options: Options, environment: Mapping[str, str], profiles: Profiles) -> str:
    return options.profile or environment.get("USANCE_PROFILE") or profiles.current


def load(
    options: Options,
    environment: Mapping[str, str],
    *,
    fresh: bool = False,
    token: str = "",
    unknown: bool = False,
) -> Connection:
    """The connection to use. Raises WrongUse saying what lacks.

    `fresh` is for a profile that is only being made; `token` is one that was typed for it; `unknown` is for
    who is about to sign in, and comes with none.
    """
    path = profile_file(environment)
    profiles = read_profiles(path)
    name = profile_name(options, environment, profiles)
    stored = profiles.by_name.get(name, {})
    if name != profiles.current and not stored and not fresh:
        raise WrongUse(f"there is no profile {name!r} in {path}; it has {_names(profiles)}")
    # A profile that is named on the command line is meant whole.
    said = {} if options.profile and not fresh else environment
    server = options.server or said.get("USANCE_SERVER") or stored.get("server")
    if options.token_file:
        token = _read(options.token_file, "--token-file").decode(errors="replace").strip()
    token = token or said.get("USANCE_TOKEN") or ""
    session = ProfileSession(path, name) if not (token or fresh) and "refresh_token" in stored else None
    token = "" if unknown else token or stored.get("token", "")
    authority = options.ca or said.get("USANCE_CA")
    authority_pem = (
        _read(Path(authority), "--ca or USANCE_CA") if authority else stored.get("authority_pem", "").encode()
    )
    if not server:
        raise WrongUse(f"no coordinator named: run `usance login`, or set USANCE_SERVER to {_MARKET_PORT}")
    if not (token or unknown):
        raise WrongUse("no token: run `usance login`, or set USANCE_TOKEN")
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise WrongUse("the token holds characters that no token has; was something else pasted?")
    if not authority_pem:
        raise WrongUse(
            "no authority to check the coordinator by: run `usance login`, or set USANCE_CA to the ca.pem "
            "that the operator gave you"
        )
    return Connection(target=check_server(server), token=token, authority_pem=authority_pem, session=session)


class ProfileSession:
    """The session of one profile."""

    def __init__(self, path: Path, name: str) -> None:
        self._path, self._name = path, name

    @contextmanager
    def alone(self) -> Iterator[bool]:
        with _alone(self._path, waits=False) as is_ours:
            yield is_ours

    def read(self) -> SessionTokens | None:
        entry = read_profiles(self._path).by_name.get(self._name, {})
        if not {"token", "refresh_token"} <= set(entry):
            return None
        until = entry.get("good_until_ms", "")
        return SessionTokens(
            access_token=entry["token"],
            good_until_ms=int(until) if until.isdecimal() else 0,
            refresh_token=entry["refresh_token"],
            renewing=entry.get("renewing", ""),
        )

    def write(self, tokens: SessionTokens) -> None:
        """Only for who is alone with it. A profile that has gone stays gone."""
        profiles = read_profiles(self._path)
        entry = profiles.by_name.get(self._name)
        if entry is not None:
            kept = {**profiles.by_name, self._name: {**entry, **_session_entry(tokens)}}
            _write(self._path, replace(profiles, by_name=kept))


def check_server(server: str) -> str:
    host, colon, port = server.rpartition(":")
    if not host or not colon or not port.isdecimal():
        raise WrongUse(f"{server!r} is no address; write {_MARKET_PORT}")
    return server


def check_name(name: str) -> str:
    if _NAME.fullmatch(name) is None:
        raise WrongUse(f"{name!r} is no name of a profile; write letters, digits, - and _, like work")
    return name


def read_profiles(path: Path) -> Profiles:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Profiles()
    except (OSError, ValueError) as error:
        raise WrongUse(
            f"the profiles {path} can't be read: {error}; remove the file and run `usance login`"
        ) from error
    tables = content.get("profiles")
    found = {
        name: {key: value for key, value in table.items() if isinstance(value, str)}
        for name, table in (tables.items() if isinstance(tables, dict) else ())
        if isinstance(table, dict)
    }
    current = content.get("current")
    return Profiles(current=current if isinstance(current, str) else DEFAULT, by_name=found)


def keep(path: Path, name: str, connection: Connection, tokens: SessionTokens | None = None) -> None:
    """Under this name, with a session's tokens, or the connection's own; the first is the current one too."""
    entry = {
        "server": connection.target,
        "token": connection.token,
        "authority_pem": connection.authority_pem.decode(),
        **({} if tokens is None else _session_entry(tokens)),
    }
    with _alone(path):
        profiles = read_profiles(path)
        current = profiles.current if profiles.by_name else name
        _write(path, Profiles(current=current, by_name={**profiles.by_name, check_name(name): entry}))


def _session_entry(tokens: SessionTokens) -> dict[str, str]:
    return {
        "token": tokens.access_token,
        "good_until_ms": str(tokens.good_until_ms),
        "refresh_token": tokens.refresh_token,
        "renewing": tokens.renewing,
    }


def forget(path: Path, name: str) -> Profiles:
    """What is left. Another becomes the current one where that is gone; without any, the file goes too."""
    with _alone(path):
        profiles = read_profiles(path)
        if name not in profiles.by_name:
            raise WrongUse(f"there is no profile {name!r} in {path} to forget; it has {_names(profiles)}")
        left = {other: entry for other, entry in profiles.by_name.items() if other != name}
        if not left:
            path.unlink()
            return Profiles()
        current = profiles.current if profiles.current in left else min(left)
        rest = Profiles(current=current, by_name=left)
        _write(path, rest)
        return rest


def use(path: Path, name: str) -> None:
    with _alone(path):
        profiles = read_profiles(path)
        if name not in profiles.by_name:
            raise WrongUse(f"there is no profile {name!r} in {path}; it has {_names(profiles)}")
        _write(path, replace(profiles, current=name))


def _names(profiles: Profiles) -> str:
    return ", ".join(sorted(profiles.by_name)) or "none yet: run `usance login`"


@contextmanager
def _alone(path: Path, *, waits: bool = True) -> Iterator[bool]:
    """With the profiles, for a block; False: another program is, and we don't wait."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise WrongUse(f"the profiles {path} can't be written: {error.strerror}") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
            is_ours = True
        except BlockingIOError:
            is_ours = False
        yield is_ours
    finally:
        os.close(lock)


def _write(path: Path, profiles: Profiles) -> None:
    # A JSON string is a TOML basic string as long as it is ASCII, which is how json writes.
    lines = [
        "# Written by `usance login`. Holds secrets: keep it to yourself.",
        f"current = {json.dumps(profiles.current)}",
    ]
    for name, entry in sorted(profiles.by_name.items()):
        lines += [
            "",
            f"[profiles.{json.dumps(name)}]",
            *(f"{key} = {json.dumps(entry[key])}" for key in entry),
        ]
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(
        os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8"
    ) as file:
        file.write("\n".join(lines) + "\n")
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def _read(path: Path, meant: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise WrongUse(f"{meant}: {path} can't be read: {error.strerror}") from error
