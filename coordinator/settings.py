"""What the operator sets: defaults, then file, environment and command line. Checked whole, and first."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from coordinator.domain.account import Role
from coordinator.domain.oidc import ALGORITHMS, is_safe, scope_map_of
from runtime.channel import MESSAGE_BYTES_MAX
from runtime.private import Source
from runtime.table import Table, lines_of, placed

CONFIG_NAME = "coordinator.toml"
DEFAULT_DATA_DIR = Path("/var/lib/usance-coordinator")
# Where the Debian package has it; only the usual data folder's settings may be there.
SYSTEM_CONFIG = Path("/etc/usance") / CONFIG_NAME
# In the data folder: when the last backup was made, in milliseconds since 1970.
LAST_BACKUP_NAME = "last-backup"
ENVIRONMENT_PREFIX = "USANCE_COORDINATOR_"
LIMIT_MAX = 1_000_000
ISSUER_MAX, LEEWAY_S_MAX = 255, 300
PORT_MAX = 32_767  # above lie the ports that outgoing connections use
# The least and the most that each whole number may be.
_RANGES = {
    "beat_interval_ms": (500, 60_000),
    "reconnect_window_ms": (1_500, 2_592_000_000),
    "fee_ppm": (0, 1_000_000),
    "host_certificate_days": (1, 90),
    "password_memory_mib": (1, 4_096),
    "password_passes": (1, 100),
    "password_lanes": (1, 64),
    "password_checks_at_once": (1, 64),
    "login_wait_seconds_max": (1, 86_400),
    "access_token_minutes": (1, 1_440),
    "session_days": (1, 365),
    "oidc_leeway_seconds": (0, LEEWAY_S_MAX),
    "output_days_kept": (0, 36_500),
    "handshake_ms_max": (1_000, 600_000),
    "idle_connection_ms": (1_000, 86_400_000),
    # An order with its secrets and a report of output fit into the least.
    "message_bytes_max": (1 << 19, 1 << 24),
}
_COUNTS = (1, LIMIT_MAX)
# What texts have to be, and how that is said.
_TEXTS = {"traces": (r"(https?://\S+)?", "such as 'http://127.0.0.1:4317'")}
_ANY_TEXT = (r"[^\x00-\x1f]*", "text in quotes")
_ADDRESSES = ("market", "hosts", "market_public", "hosts_public", "metrics")
COMMAND_WORDS_MAX = 64


class SettingsError(ValueError):
    """Settings can't be used; the message says which, and what would be right, a line each."""


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
    # The file of the authority's key; "" is ca.key in the data folder. Or the command that prints it.
    ca_key: str = ""
    ca_key_command: tuple[str, ...] = ()
    # The same for the keys that seal jobs' secrets; "" is secrets.key.
    secrets_key: str = ""
    secrets_key_command: tuple[str, ...] = ()
    # What one account may ask for: so many requests a second, so many at once after a rest, so many streams.
    account_requests_per_second: int = 200
    account_requests_burst: int = 4_000
    account_streams_max: int = 200
    account_open_jobs_max: int = 20_000
    # How much output is kept: of one attempt; and of one account's jobs, before it may send in more of them.
    job_output_mib_max: int = 4_096
    account_output_mib_max: int = 65_536
    # What one address may ask for without an account: to enrol machines, and to come with a bad token.
    enrolments_per_second: int = 20
    enrolments_burst: int = 1_000
    bad_tokens_per_second: int = 1
    bad_tokens_burst: int = 60
    # What it costs to hash a password (argon2id), and how many are hashed at once.
    password_memory_mib: int = 64
    password_passes: int = 3
    password_lanes: int = 4
    password_checks_at_once: int = 2
    # How many failed logins to an account, and from an address, need not wait; the longest wait of others.
    login_failures_free: int = 5
    address_login_failures_free: int = 30
    login_wait_seconds_max: int = 300
    # How long an access token is good, and the session that renews it.
    access_token_minutes: int = 15
    session_days: int = 30
    # The operator's own identity provider, "" for none; and whom and what it vouches for.
    oidc_issuer: str = ""
    oidc_audience: str = ""
    oidc_jwks_url: str = ""
    oidc_ca: str = ""
    oidc_algorithms: str = "RS256 ES256 EdDSA"
    oidc_leeway_seconds: int = 30
    oidc_scope_claim: str = "scope"
    oidc_scope_map: str = ""
    oidc_name_claim: str = "preferred_username"
    oidc_new_accounts: str = ""
    # Connections: to each of our two ports; from one address that have shown no token or certificate so
    # far; how long one may take to be made, and be without a call.
    connections_max: int = 20_000
    address_strangers_max: int = 1_000
    handshake_ms_max: int = 20_000
    idle_connection_ms: int = 600_000
    # The longest message that is taken in.
    message_bytes_max: int = MESSAGE_BYTES_MAX
    # For how many days a job's output is kept after its end; 0 is for ever.
    output_days_kept: int = 0
    # Where a Prometheus may read the figures, host:port; "" for nowhere.
    metrics: str = "127.0.0.1:7412"
    # Where spans are sent, as OTLP over gRPC; "" for nowhere.
    traces: str = ""
    log_json: bool = False

    @property
    def database_url(self) -> str:
        return self.database or f"sqlite:///{self.data_dir / 'usance.db'}"

    @property
    def backup_mark(self) -> Path:
        """Written anew by every backup: its time is the last one's."""
        return self.data_dir / LAST_BACKUP_NAME

    @property
    def ca_key_source(self) -> Source:
        return self._source(self.ca_key or "ca.key", self.ca_key_command)

    @property
    def secrets_key_source(self) -> Source:
        return self._source(self.secrets_key or "secrets.key", self.secrets_key_command)

    def _source(self, path: str, command: tuple[str, ...]) -> Source:
        """A path that is not a whole one is one in the data folder."""
        return Source(path=self.data_dir / path, command=command)


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

# Where the authority's key is kept: in this folder as ca.key, unless another file is named (for its owner's
# eyes alone), or a command that prints it: a program and its arguments, without a shell, within 30 seconds.
#ca_key = ""
#ca_key_command = []

# The keys that jobs' secrets are sealed with in the database, one a line in hexadecimal, the first for new
# ones; in this folder as secrets.key, unless they are kept elsewhere. See: usance-coordinator rotate-secrets
#secrets_key = ""
#secrets_key_command = []

# What one account may ask for: so many requests a second, so many at once after a rest, so many open streams
# and jobs that have not ended. What is more is refused, with the time after which it would be taken.
#account_requests_per_second = 200
#account_requests_burst = 4000
#account_streams_max = 200
#account_open_jobs_max = 20000

# How much output is kept, in MiB: of each try of a job; and of all jobs of one account, of which no more jobs
# are taken in meanwhile.
#job_output_mib_max = 4096
#account_output_mib_max = 65536

# What one address may ask for without an account: to enrol machines, and to come with a token that is not
# good.
#enrolments_per_second = 20
#enrolments_burst = 1000
#bad_tokens_per_second = 1
#bad_tokens_burst = 60

# Connections: how many to each of the two ports; how many from one address that have shown no token and no
# certificate so far; how long one may take to be made, and how long it may be without a call.
#connections_max = 20000
#address_strangers_max = 1000
#handshake_ms_max = 20000
#idle_connection_ms = 600000

# The longest message that is taken in, in bytes.
#message_bytes_max = 1048576

# Passwords are hashed by argon2id: memory in MiB and passes over it (more is dearer to guess), lanes, and how
# many at once, each with that memory. A password that was hashed for less is hashed anew at its next login.
#password_memory_mib = 64
#password_passes = 3
#password_lanes = 4
#password_checks_at_once = 2

# So many failed logins to an account, and from an address, may follow each other at once; from then on each
# has to wait a second, two, four, up to the longest. An address where the account was signed in before is
# counted apart.
#login_failures_free = 5
#address_login_failures_free = 30
#login_wait_seconds_max = 300

# How long an access token is good, and the session that renews it by itself.
#access_token_minutes = 15
#session_days = 30

# Tokens of your own identity provider (OpenID Connect): its issuer, as its tokens and its discovery document
# have it, and the audience that they must be for. Keys are looked up by discovery, unless their address is
# named; oidc_ca is a file of the authority to check it by, where that is none of the system's.
#oidc_issuer = ""
#oidc_audience = ""
#oidc_jwks_url = ""
#oidc_ca = ""
#oidc_algorithms = "RS256 ES256 EdDSA"
#oidc_leeway_seconds = 30

# What a token opens: the claim that has its scopes, and which of its words mean which of ours, like
# "staff=admin:*,jobs:* gpu-users=jobs:*,wallet:read *=jobs:read"; without a map, our own words.
#oidc_scope_claim = "scope"
#oidc_scope_map = ""

# Whose account a subject is: you bind each by `usance admin subject-bind`; or, if roles are named here (like
# "buyer" or "buyer seller"), one is made at the first visit, with a name of this claim.
#oidc_new_accounts = ""
#oidc_name_claim = "preferred_username"
# For how many days a job's output is kept after its end; 0 is for ever. Bills stay; see: usance-coordinator
# archive
#output_days_kept = 0

# Where a Prometheus may read the figures (docs/metrics.md); "" for nowhere. Whoever reaches the address may.
#metrics = "127.0.0.1:7412"

# Where traces are sent, such as "http://127.0.0.1:4317"; it takes usance[otel] (docs/traces.md).
#traces = ""

# Logs as JSON, one object a line.
#log_json = false
"""


def config_path(data_dir: Path) -> Path:
    """Where the settings of the coordinator in `data_dir` are, or would be written."""
    own = data_dir / CONFIG_NAME
    if data_dir == DEFAULT_DATA_DIR and SYSTEM_CONFIG.exists() and not own.exists():
        return SYSTEM_CONFIG
    return own


def load(
    data_dir: Path,
    overrides: Mapping[str, str | int | bool | None],
    environment: Mapping[str, str] | None = None,
) -> Settings:
    """Settings of the coordinator whose data is in `data_dir`; overrides that are None don't count."""
    path = config_path(data_dir)
    try:
        text = path.read_text(encoding="utf-8")
        given = tomllib.loads(text)
    except FileNotFoundError:
        text, given = "", {}
    except OSError as error:
        raise SettingsError(f"{path} can't be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: not TOML: {error}") from None
    lines, over = lines_of(text), _of_environment(environment or {})
    origins = {name: f"{ENVIRONMENT_PREFIX}{name.upper()}" for name in over}
    for name, value in overrides.items():
        if value is not None:
            over[name], origins[name] = value, f"--{name.replace('_', '-')}"
    faults: list[str] = []
    settings = _read(data_dir, given | over, faults)
    if faults:
        raise SettingsError("\n".join(_told(fault, path, lines, origins) for fault in faults))
    return settings


def _of_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    """What the environment says of settings; a number that is none is left to be told as one."""
    kinds = {item.name: type(item.default) for item in fields(Settings)}
    found: dict[str, Any] = {}
    for name, kind in kinds.items():
        said = environment.get(f"{ENVIRONMENT_PREFIX}{name.upper()}")
        if said is None or name == "data_dir":
            continue
        found[name] = said
        if kind is int and said.isascii() and said.isdigit():
            found[name] = int(said)
        elif kind is bool and said in ("true", "false"):
            found[name] = said == "true"
    return found


def _told(fault: str, path: Path, lines: Mapping[str, int], origins: Mapping[str, str]) -> str:
    name, _, words = fault.partition(": ")
    return f"{origins[name]}: {words}" if name in origins else f"{path}: {placed(fault, lines)}"


def _read(data_dir: Path, values: Mapping[str, object], faults: list[str]) -> Settings:
    table = Table("", values, faults)
    found: dict[str, Any] = {}
    for item in fields(Settings):
        default = item.default
        if isinstance(default, bool):
            found[item.name] = table.flag(item.name, default=default)
        elif isinstance(default, int):
            found[item.name] = table.number(item.name, default, *_RANGES.get(item.name, _COUNTS))
        elif isinstance(default, tuple):
            found[item.name] = table.names(item.name, default)
        elif isinstance(default, str):
            found[item.name] = table.text(item.name, default, *_TEXTS.get(item.name, _ANY_TEXT))
    table.leftovers()
    settings = replace(Settings(data_dir=data_dir), **found)
    faults += _faults_of(settings)
    return settings


def _faults_of(settings: Settings) -> list[str]:
    """Of values that are right one by one."""
    faults = []
    for name in _ADDRESSES:
        address = getattr(settings, name)
        try:
            _, port = split_address(name, address) if address else ("", 0)
        except SettingsError as error:
            faults.append(str(error))
            continue
        if name in ("market", "hosts"):
            if not address:
                faults.append(f"{name}: an address as host:port, not ''")
            if port > PORT_MAX:
                faults.append(f"{name}: a port up to {PORT_MAX}, not {port}")
    if settings.reconnect_window_ms < 3 * settings.beat_interval_ms:
        faults.append("reconnect_window_ms: at least three times beat_interval_ms")
    for name in ("ca_key", "secrets_key"):
        command = getattr(settings, f"{name}_command")
        if command and getattr(settings, name):
            faults.append(f"{name}: this or {name}_command, not both")
        if len(command) > COMMAND_WORDS_MAX:
            faults.append(f"{name}_command: a program and at most {COMMAND_WORDS_MAX - 1} arguments")
    return faults + (_provider_faults(settings) if settings.oidc_issuer else [])


def _provider_faults(settings: Settings) -> list[str]:
    """Of an identity provider that is set: what would let in whom nobody meant."""
    faults = []
    if not settings.oidc_audience:
        faults.append("oidc_audience: whom the tokens of oidc_issuer are for; else any of its would do")
    for name in ("oidc_issuer", "oidc_jwks_url"):
        url = getattr(settings, name)
        if url and not is_safe(url):
            faults.append(f"{name}: an https address, or one of this machine, not {url!r}")
    if len(settings.oidc_issuer) > ISSUER_MAX:
        faults.append(f"oidc_issuer: at most {ISSUER_MAX} characters")
    if settings.oidc_ca and not Path(settings.oidc_ca).is_file():
        faults.append(f"oidc_ca: there is no file {settings.oidc_ca}")
    algorithms = settings.oidc_algorithms.split()
    if not algorithms or set(algorithms) - ALGORITHMS:
        faults.append(f"oidc_algorithms: of {', '.join(sorted(ALGORITHMS))}")
    try:
        scope_map_of(settings.oidc_scope_map)
    except ValueError as error:
        faults.append(f"oidc_scope_map: {error}")
    if not set(settings.oidc_new_accounts.split()) <= {Role.BUYER, Role.SELLER}:
        faults.append("oidc_new_accounts: buyer, seller or both; operators are bound by hand")
    return faults


def split_address(name: str, address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65_535:
        raise SettingsError(f"{name}: an address as host:port, not {address!r}")
    return host, int(port)
