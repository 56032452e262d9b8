"""What is wrong with a coordinator and its machine, and what to do about it.

Facts come in as values, findings go out; nothing here looks at the machine. `None` is what nobody could tell.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from runtime.findings import Finding, bad, doubt, good

GIB = 1 << 30
FREE_BYTES_LEAST = 2 * GIB
# An authority is replaced without haste while there is so much time.
AUTHORITY_DAYS_LEAST = 90
BACKUP_HOURS_MOST = 26
_EVERYWHERE = ("0.0.0.0", "[::]", "::")  # noqa: S104 - to be recognised, not to be listened on
_LOOPBACK = ("127.", "localhost", "[::1]")


@dataclass(frozen=True, kw_only=True)
class SecretFacts:
    """A file for its owner alone; no mode where it is not there."""

    name: str
    mode: int | None


@dataclass(frozen=True, kw_only=True)
class AuthorityFacts:
    """The certificate that everybody trusts."""

    error: str = ""
    days_left: int = 0
    is_rotating: bool = False


@dataclass(frozen=True, kw_only=True)
class DatabaseFacts:
    """Its URL without a password; revisions of its schema as it is and as this program wants it."""

    url: str
    error: str = ""
    revision: str | None = None
    wanted: str = ""
    # This program knows the revision, so it can bring it up to date.
    is_known: bool = True


@dataclass(frozen=True, kw_only=True)
class DoorFacts:
    """One of the two addresses; `error` is what came of binding it, or of calling who has it."""

    name: str
    address: str
    public: str
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class MachineFacts:
    """What the programs of the machine do for us."""

    folder: str
    folder_mode: int | None = None
    free_bytes: int | None = None
    clock_synchronized: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Everything that was looked at. Without an authority there is no coordinator yet."""

    settings_path: str
    settings_error: str = ""
    metrics: str = ""
    machine: MachineFacts
    secrets: tuple[SecretFacts, ...] = ()
    authority: AuthorityFacts | None = None
    database: DatabaseFacts | None = None
    # Who keeps the market now, as people say it; empty where nobody does.
    holder: str = ""
    doors: tuple[DoorFacts, ...] = ()
    # Since the last backup that this coordinator was told of.
    backup_hours: int | None = None


def examine(facts: Facts) -> list[Finding]:
    """Every check, in the order in which a person would mend things."""
    if facts.settings_error:
        remedy = "mend the lines that are named; all other checks went by what holds without the file"
        found = [bad("settings", "; ".join(facts.settings_error.splitlines()), remedy)]
    else:
        found = [good("settings", facts.settings_path)]
    found += [*_folder(facts.machine), *_clock(facts.machine)]
    if facts.authority is None:
        remedy = "usance-coordinator init; of a market that was lost, restore a backup instead"
        return [*found, bad("coordinator", f"none was made in {facts.machine.folder}", remedy)]
    found += [*_secrets(facts), *_authority(facts.authority)]
    if facts.database is not None:
        found += _database(facts.database)
        found += _backup(facts)
    return [*found, *_serving(facts), *_figures(facts.metrics)]


def _folder(machine: MachineFacts) -> Iterator[Finding]:
    mode, free = machine.folder_mode, machine.free_bytes
    if mode is not None and mode & 0o077:
        remedy = f"chmod 700 {machine.folder}"
        yield bad("data folder", f"others on this machine get into {machine.folder}", remedy)
    if free is not None and free < FREE_BYTES_LEAST:
        remedy = f"free at least {FREE_BYTES_LEAST // GIB} GiB there: without room nothing can be charged"
        yield bad("disk", f"{free >> 20} MiB are free below {machine.folder}", remedy)
    elif free is not None:
        yield good("disk", f"{free // GIB} GiB free")


def _clock(machine: MachineFacts) -> Iterator[Finding]:
    if machine.clock_synchronized is False:
        remedy = "timedatectl set-ntp true; certificates, tokens and what people read go by this clock"
        yield doubt("clock", "nothing keeps it right", remedy)
    elif machine.clock_synchronized:
        yield good("clock", "kept right")


def _secrets(facts: Facts) -> Iterator[Finding]:
    for secret in facts.secrets:
        if secret.mode is None:
            yield bad(secret.name, "it is not there", "restore it from a backup; nothing can take its place")
        elif secret.mode & 0o077:
            remedy = f"chmod 600 {secret.name}; if somebody may have read it, see docs/threat-model.md"
            yield bad(secret.name, "others on this machine can read it", remedy)
        else:
            yield good(secret.name, "for its owner alone")


def _authority(authority: AuthorityFacts) -> Iterator[Finding]:
    days = authority.days_left
    if authority.error:
        yield bad("authority", authority.error, "restore ca.pem and ca.key from a backup")
    elif days < 0:
        remedy = "usance-coordinator rotate-ca begin, then finish --force; every host is enrolled anew"
        yield bad("authority", "its certificate is over", remedy)
    elif authority.is_rotating:
        remedy = "when all hosts have renewed their certificates: usance-coordinator rotate-ca finish"
        yield doubt("authority", "another one follows it, and both are trusted", remedy)
    elif days < AUTHORITY_DAYS_LEAST:
        remedy = "usance-coordinator rotate-ca begin; hosts move to the next one as they renew"
        yield doubt("authority", f"good for {days} days", remedy)
    else:
        yield good("authority", f"good for {days} days")


def _database(database: DatabaseFacts) -> Iterator[Finding]:
    if database.error:
        remedy = f"does it run, and does it let this user in? database is {database.url}"
        yield bad("database", database.error, remedy)
    elif database.revision is None:
        remedy = "restore a backup; or, of a market that never was, init with a new data folder"
        yield bad("database", f"{database.url} is empty", remedy)
    elif not database.is_known:
        found = f"its schema, {database.revision}, is newer than this program's, {database.wanted}"
        yield bad("database", found, "install the version that made it, or a newer one")
    elif database.revision != database.wanted:
        found = f"its schema is {database.revision}, this program's {database.wanted}"
        yield doubt("database", found, "back it up; the next start of the coordinator migrates it")
    else:
        yield good("database", f"{database.url}, schema {database.revision}")


def _backup(facts: Facts) -> Iterator[Finding]:
    hours = facts.backup_hours
    if hours is not None and hours > BACKUP_HOURS_MOST:
        yield doubt("backup", f"the last one is {hours} hours old", "usance-coordinator backup, every day")
    elif hours is not None:
        yield good("backup", f"{hours} hours old")


def _serving(facts: Facts) -> Iterator[Finding]:
    if facts.holder:
        yield good("coordinator", f"{facts.holder} serves")
    else:
        remedy = "systemctl start usance-coordinator; why it ended: journalctl -u usance-coordinator"
        yield doubt("coordinator", "none runs", remedy)
    for door in facts.doors:
        name = f"{door.name} address"
        host = door.address.rpartition(":")[0]
        if door.error:
            remedy = (
                "what does its log say? a packet filter would let this machine call itself"
                if facts.holder
                else f"end what listens there, or choose another address for {door.name}"
            )
            yield bad(name, f"{door.address}: {door.error}", remedy)
        elif host in _EVERYWHERE and not door.public:
            remedy = f'say by which name others reach you: {door.name}_public = "market.example.org:7410"'
            yield bad(name, f"others would be told to connect to {door.address}", remedy)
        elif host.startswith(_LOOPBACK) and not door.public:
            remedy = f'{door.name} = "0.0.0.0:PORT" and {door.name}_public = "NAME:PORT", for other machines'
            yield doubt(name, f"{door.address}: nobody but this machine reaches it", remedy)
        else:
            yield good(name, f"{door.address}{' answers' if facts.holder else ' is free'}")


def _figures(metrics: str) -> Iterator[Finding]:
    if metrics and not metrics.startswith(_LOOPBACK):
        remedy = "let a packet filter keep all but your Prometheus away; they say who trades how much"
        yield doubt("figures", f"whoever reaches {metrics} may read them", remedy)
    elif metrics:
        yield good("figures", metrics)
