"""What the operator sets: defaults, then the file, then the command line. Checked whole before anything."""

import tomllib
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

CONFIG_NAME = "coordinator.toml"
LIMIT_MAX = 1_000_000
# Whole numbers from one on, and the greatest that each may be.
_FROM_ONE = {
    "host_certificate_days": 90,
    "account_requests_per_second": LIMIT_MAX,
    "account_requests_burst": LIMIT_MAX,
    "account_streams_max": LIMIT_MAX,
    "account_open_jobs_max": LIMIT_MAX,
    "enrolments_per_second": LIMIT_MAX,
    "enrolments_burst": LIMIT_MAX,
    "bad_tokens_per_second": LIMIT_MAX,
    "bad_tokens_burst": LIMIT_MAX,
}
PORT_MAX = 32_767  # above lie the ports that outgoing connections use


_KINDS: dict[type, str] = {str: "text", int: "a whole number", bool: "true or false"}


class SettingsError(ValueError):
    """A setting can't be used; the message says which, and what would be right."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    data_dir: Path
    # Where people, and machines that enrol, connect; where agents do.
    market: str = "127.0.0.1:7410"
    hosts: str = "127.0.0.1:7411"
    # As seen from outside, where that differs (behind a NAT or a load balancer).
    market_public: str = ""
    hosts_public: str = ""
    # "" is SQLite in the data folder; else postgresql+psycopg://…
    database: str = ""
    beat_interval_ms: int = 5_000
    reconnect_window_ms: int = 600_000
    fee_ppm: int = 50_000
    # How long a host's certificate is good; its agent renews it when half of that is over.
    host_certificate_days: int = 7
    # The file of the keys that seal jobs' secrets; "" is secrets.key in the data folder.
    secrets_key: str = ""
    # What one account may ask for: so many requests a second, so many at once after a rest, so many streams.
    account_requests_per_second: int = 200
    account_requests_burst: int = 4_000
    account_streams_max: int = 200
    account_open_jobs_max: int = 20_000
    # What one address may ask for without an account: to enrol machines, and to come with a bad token.
    enrolments_per_second: int = 20
    enrolments_burst: int = 1_000
    bad_tokens_per_second: int = 1
    bad_tokens_burst: int = 60
    # Where a Prometheus may read the figures, host:port; "" for nowhere.
    metrics: str = ""
    log_json: bool = False

    @property
    def database_url(self) -> str:
        return self.database or f"sqlite:///{self.data_dir / 'usance.db'}"

    @property
    def secrets_key_path(self) -> Path:
        return Path(self.secrets_key) if self.secrets_key else self.data_dir / "secrets.key"


TEMPLATE = """\
# Settings of usance-coordinator. Every line that is commented out shows its default.

# Where people, and machines that enrol, connect; and where agents do. To serve other machines than this
# one, listen on all addresses and say under which names you are reached:
#market = "127.0.0.1:7410"
#hosts = "127.0.0.1:7411"
#market_public = "market.example.org:7410"
#hosts_public = "market.example.org:7411"

# SQLite in this folder, unless a PostgreSQL is named:
#database = "postgresql+psycopg://usance@localhost/usance"

# How often a host says that it is alive, and how long a silent one is waited for.
#beat_interval_ms = 5000
#reconnect_window_ms = 600000

# The platform's part of each charge, in parts per million.
#fee_ppm = 50000

# How long a host's certificate is good, in days; its agent renews it when half of that is over. A machine
# that was off for longer has to be enrolled anew.
#host_certificate_days = 7

# The keys that jobs' secrets are sealed with in the database, one a line, the first for new ones; in this
# folder as secrets.key, unless another file is named:
#secrets_key = ""

# What one account may ask for: so many requests a second, so many at once after a rest, so many open streams
# and jobs that have not ended. What is more is refused, with the time after which it would be taken.
#account_requests_per_second = 200
#account_requests_burst = 4000
#account_streams_max = 200
#account_open_jobs_max = 20000

# What one address may ask for without an account: to enrol machines, and to come with a token that is not
# good.
#enrolments_per_second = 20
#enrolments_burst = 1000
#bad_tokens_per_second = 1
#bad_tokens_burst = 60

# Where a Prometheus may read the figures; nowhere, if nothing is named.
#metrics = "127.0.0.1:7412"

# Logs as JSON, one object a line.
#log_json = false
"""


def load(data_dir: Path, overrides: dict[str, str | int | bool | None]) -> Settings:
    """Settings of the coordinator whose data is in `data_dir`; overrides that are None don't count."""
    path = data_dir / CONFIG_NAME
    given: dict[str, Any] = {}
    if path.exists():
        try:
            given = tomllib.loads(path.read_text(encoding="utf-8"))
        except tomllib.TOMLDecodeError as error:
            raise SettingsError(f"{path}: {error}") from None
    given |= {name: value for name, value in overrides.items() if value is not None}
    settings = replace(Settings(data_dir=data_dir), **_checked(given, path))
    _check(settings)
    return settings


def _checked(given: dict[str, Any], path: Path) -> dict[str, Any]:
    known = {f.name: type(f.default) for f in fields(Settings) if f.name != "data_dir"}
    for name, value in given.items():
        if name not in known:
            raise SettingsError(f"{path}: there is no setting {name!r}; there are {', '.join(known)}")
        if type(value) is not known[name]:
            raise SettingsError(f"{path}: {name} must be {_KINDS[known[name]]}, not {value!r}")
    return given


def _check(settings: Settings) -> None:
    for name in ("market", "hosts"):
        _, port = split_address(name, getattr(settings, name))
        if port > PORT_MAX:
            raise SettingsError(f"{name}: a port up to {PORT_MAX}, not {port}")
    for name in ("market_public", "hosts_public", "metrics"):
        if getattr(settings, name):
            split_address(name, getattr(settings, name))
    if not 500 <= settings.beat_interval_ms <= 60_000:
        raise SettingsError("beat_interval_ms: between 500 and 60000")
    if settings.reconnect_window_ms < 3 * settings.beat_interval_ms:
        raise SettingsError("reconnect_window_ms: at least three times beat_interval_ms")
    for name, most in _FROM_ONE.items():
        if not 1 <= getattr(settings, name) <= most:
            raise SettingsError(f"{name}: between 1 and {most}")
    if not 0 <= settings.fee_ppm <= 1_000_000:
        raise SettingsError("fee_ppm: between 0 and 1000000")


def split_address(name: str, address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65_535:
        raise SettingsError(f"{name}: an address as host:port, not {address!r}")
    return host, int(port)
