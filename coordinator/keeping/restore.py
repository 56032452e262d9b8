"""A coordinator from its backup, and a database that came back by other means."""

import shutil
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from coordinator import identity
from coordinator.domain.restoration import Restoration
from coordinator.keeping import copies
from coordinator.keeping.backup import KEYS, PUBLIC, keys_of, places
from coordinator.keeping.manifest import (
    DATABASE_NAME,
    MANIFEST_NAME,
    DamagedError,
    KeepingError,
    Manifest,
    from_json,
    part_of,
)
from coordinator.services import accounts, restoration, vault
from coordinator.services.mint import Mint
from coordinator.settings import Settings
from coordinator.store import migrate
from coordinator.store.seat import Seat
from coordinator.store.transaction import SqlTransaction
from ledger.engine import make_engine
from runtime import private
from runtime.ids import new_key, new_uuid

TOKEN_NAME, TOKEN_MS = "operator.token", 365 * 86_400_000
_BESIDE = ("", "-wal", "-shm")


@dataclass(frozen=True, kw_only=True)
class Options:
    """`replace`: put aside the database that is there. `without_keys`: become another authority."""

    keys_file: Path | None = None
    replace: bool = False
    without_keys: bool = False
    revoke_tokens: bool = False


@dataclass(frozen=True, kw_only=True)
class Came:
    """What has come back, and what of it is known."""

    restored: Restoration
    # None where other programs have brought the database back.
    manifest: Manifest | None
    revision: str
    violations: Sequence[str]
    jobs_waiting: int
    hosts: int
    accounts: int
    tokens_revoked: int
    # Files that were there, and that stayed as they were; where the database that was there lies now.
    kept: Sequence[str] = ()
    put_aside: Path | None = None
    # Where all tokens were revoked: a new one for the operator.
    operator_token: str = field(default="", repr=False)


def restore(settings: Settings, file: Path, options: Options, now_ms: int) -> Came:
    """Nothing of it is seen in the data folder before all of it has been found good."""
    if not settings.database_url.startswith("sqlite:"):
        raise KeepingError(
            "the database is PostgreSQL's: bring it back with its own programs, then: restore --mark-only;"
            " see docs/backup.md"
        )
    if not file.exists():
        raise KeepingError(f"{file}: there is no such file")
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    seat = _seated(settings)
    try:
        target = settings.data_dir / DATABASE_NAME
        if target.exists() and not options.replace:
            raise KeepingError(f"{target} is there already; --replace puts it aside")
        with tempfile.TemporaryDirectory(prefix=".usance-restore-", dir=settings.data_dir) as folder:
            work = Path(folder)
            manifest = _unpack(file, work, options, settings)
            came = _make_good(work / DATABASE_NAME, manifest, options, now_ms)
            put_aside = _put_aside(target, now_ms) if target.exists() else None
            kept = _lay(work, settings)
            if options.without_keys:
                _become_another(settings, now_ms)
            (work / DATABASE_NAME).rename(target)
            _hand_over(settings, came)
            copies.sync(settings.data_dir)
        return replace(came, kept=kept, put_aside=put_aside)
    finally:
        seat.leave()


def mark_only(settings: Settings, options: Options, now_ms: int) -> Came:
    """The database is back already: by pg_restore, by a copy of the disk."""
    seat = _seated(settings)
    engine = make_engine(settings.database_url)
    try:
        if migrate.current(engine) is None:
            raise KeepingError(f"{engine.url.render_as_string()}: there is no database of a market")
        migrate.upgrade(engine)
        with engine.begin() as connection:
            came = _mark(SqlTransaction(connection), None, options, now_ms)
        _hand_over(settings, came)
        return came
    finally:
        engine.dispose()
        seat.leave()


def _seated(settings: Settings) -> Seat:
    seat = Seat(settings.data_dir, settings.database_url)
    if not seat.take():
        holder = seat.holder()
        seat.leave()
        raise KeepingError(f"a coordinator keeps this market ({holder}): stop it first")
    return seat


def _unpack(file: Path, work: Path, options: Options, settings: Settings) -> Manifest:
    manifest = _manifest_of(file)
    if not migrate.knows(manifest.revision):
        raise KeepingError(
            f"the backup is of a newer version (schema {manifest.revision}; this one knows {migrate.head()}):"
            f" restore it with usance {manifest.program} or later"
        )
    _extract(file, work, [MANIFEST_NAME, *manifest.parts], (DATABASE_NAME, *PUBLIC, MANIFEST_NAME))
    for name, expected in manifest.parts.items():
        if part_of(work / name) != expected:
            raise DamagedError(
                f"{file}: {name} is not what the manifest says: another file, or a damaged one"
            )
    if not options.without_keys:
        _unpack_keys(options.keys_file or keys_of(file), work, manifest, settings)
    return manifest


def _unpack_keys(keys_file: Path, work: Path, manifest: Manifest, settings: Settings) -> None:
    if not keys_file.exists():
        if settings.ca_key_source.command or settings.ca_key_source.path.exists():
            return
        raise KeepingError(
            f"{keys_file}: the keys are not there, and nobody would know this coordinator without them; name"
            " their file (--keys), or become another one (--without-keys: every machine is enrolled anew)"
        )
    if manifest.keys and part_of(keys_file).sha256 != manifest.keys["sha256"]:
        raise DamagedError(f"{keys_file} is not the one that was made with this backup")
    _extract(keys_file, work, None, KEYS)


def _manifest_of(file: Path) -> Manifest:
    try:
        with tarfile.open(file) as tar:
            found = tar.extractfile(MANIFEST_NAME)
            if found is None:
                raise KeyError(MANIFEST_NAME)
            return from_json(found.read().decode())
    except (tarfile.TarError, KeyError, EOFError, OSError, UnicodeDecodeError):
        raise DamagedError(f"{file} is no backup, or the beginning of one") from None


def _extract(file: Path, work: Path, names: Sequence[str] | None, allowed: Sequence[str]) -> None:
    """Only plain files of names that we know; all others are no business of ours."""
    try:
        with tarfile.open(file) as tar:
            for entry in tar:
                if entry.name not in allowed or not entry.isfile():
                    raise DamagedError(f"{file}: holds {entry.name!r}, which no backup of ours does")
                found = tar.extractfile(entry)
                assert found is not None, "it is a file"
                path = work / entry.name
                path.touch(mode=0o600)
                with path.open("wb") as out:
                    shutil.copyfileobj(found, out)
    except (tarfile.TarError, EOFError) as error:
        raise DamagedError(f"{file} is damaged: {error}") from None
    missing = [name for name in names or () if not (work / name).exists()]
    if missing:
        raise DamagedError(f"{file}: {missing[0]} is missing; its end was cut off?")


def _make_good(database: Path, manifest: Manifest, options: Options, now_ms: int) -> Came:
    copies.check(database)
    engine = make_engine(f"sqlite:///{database}")
    try:
        migrate.upgrade(engine)
        with engine.begin() as connection:
            came = _mark(SqlTransaction(connection), manifest, options, now_ms)
        # All is in one file when the last one closes it.
        with engine.connect() as connection:
            connection.connection.driver_connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # type: ignore[union-attr]
    finally:
        engine.dispose()
    copies.sync(database)
    return came


def _mark(tx: SqlTransaction, manifest: Manifest | None, options: Options, now_ms: int) -> Came:
    """The audit comes after: a mark is no reason to find fault."""
    restored = restoration.mark(tx, now_ms)
    revoked, token = 0, ""
    if options.revoke_tokens:
        revoked = tx.revoke_tokens(now_ms)
        # Any key will do: the database has the digest of what is made with it, and nobody asks for it again.
        mint, request_id, named = Mint(key=new_key()), str(new_uuid()), accounts.OPERATOR_NAME
        token = accounts.create_token(tx, mint, "restore", request_id, named, TOKEN_MS, now_ms).token
    ledger_violations, _ = tx.audit()
    return Came(
        restored=restored,
        manifest=manifest,
        revision=migrate.head(),
        violations=[*ledger_violations, *tx.market_violations()],
        jobs_waiting=restored.jobs - restored.attempts,
        hosts=len(tx.host_ids()),
        accounts=len(tx.account_ids()),
        tokens_revoked=revoked,
        operator_token=token,
    )


def _hand_over(settings: Settings, came: Came) -> None:
    if came.operator_token:
        path = settings.data_dir / TOKEN_NAME
        path.unlink(missing_ok=True)
        private.write(path, f"{came.operator_token}\n".encode())


def _put_aside(target: Path, now_ms: int) -> Path:
    aside = target.with_name(f"{target.name}.before-{now_ms}")
    for beside in _BESIDE:
        found = target.with_name(target.name + beside)
        if found.exists():
            found.rename(aside.with_name(aside.name + beside))
    return aside


def _lay(work: Path, settings: Settings) -> list[str]:
    """What is there stays: it may be newer, as after a rotation of the authority. Which those are."""
    kept = []
    for name, target in places(settings).items():
        if not (work / name).exists():
            continue
        if target.exists():
            kept.append(name)
            continue
        (work / name).chmod(0o600 if name in KEYS else 0o644)
        shutil.move(work / name, target)
    return kept


def _become_another(settings: Settings, now_ms: int) -> None:
    if not settings.ca_key_source.path.exists():
        for name in PUBLIC[:3]:
            (settings.data_dir / name).unlink(missing_ok=True)
        identity.create(settings.data_dir, now_ms, settings.ca_key_source)
    if not (settings.data_dir / "token.key").exists():
        private.write(settings.data_dir / "token.key", new_key())
    vault.kept(settings.secrets_key_source)
