"""A backup of a coordinator: one file of what may be read by who keeps it, and one of its keys."""

import datetime as dt
import os
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from coordinator.keeping import copies
from coordinator.keeping.manifest import (
    DATABASE_NAME,
    MANIFEST_NAME,
    KeepingError,
    Manifest,
    part_of,
)
from coordinator.settings import CONFIG_NAME, Settings, config_path

# What everybody may know of who we are; all of it that there is.
PUBLIC = ("ca.pem", "ca-next.pem", "authorities.pem", CONFIG_NAME)
# By what we are known, what tokens are made of, what opens jobs' secrets, and the operator's own token.
SECRETS_NAME = "secrets.key"
KEYS = ("ca.key", "ca-next.key", "token.key", SECRETS_NAME, "operator.token")
KEYS_SUFFIX = ".keys"


@dataclass(frozen=True, kw_only=True)
class Made:
    """Where it lies, and what it says of itself."""

    file: Path
    keys_file: Path | None
    manifest: Manifest
    violations: Sequence[str]


def places(settings: Settings) -> dict[str, Path]:
    """Where each of those is kept here; a key that a command prints is kept by whoever keeps that."""
    folder = settings.data_dir
    found = {name: folder / name for name in (*PUBLIC, *KEYS)} | {CONFIG_NAME: config_path(folder)}
    for name, source in (("ca.key", settings.ca_key_source), (SECRETS_NAME, settings.secrets_key_source)):
        if source.command:
            del found[name]
        else:
            found[name] = source.path
    return found


def default_name(now_ms: int) -> Path:
    return Path(f"usance-{_moment(now_ms):%Y%m%d-%H%M%S}.tar")


def keys_of(file: Path) -> Path:
    return file.with_name(file.name + KEYS_SUFFIX)


def make(settings: Settings, file: Path, *, with_keys: bool, now_ms: int, progress: copies.Progress) -> Made:
    """While the coordinator runs. Nothing has the file's name before it is whole and on the disk."""
    source, keys_file = settings.data_dir / DATABASE_NAME, keys_of(file)
    if not settings.database_url.startswith("sqlite:"):
        raise KeepingError(
            "the database is PostgreSQL's, which has programs of its own for that; see docs/backup.md"
        )
    if not source.exists():
        raise KeepingError(f"{source}: there is no database to keep")
    for path in (file, keys_file):
        if path.exists():
            raise KeepingError(f"{path} exists; give another name")
    with tempfile.TemporaryDirectory(prefix=".usance-backup-", dir=file.absolute().parent) as folder:
        work = Path(folder)
        copies.copy(source, work / DATABASE_NAME, progress)
        copies.check(work / DATABASE_NAME)
        found = copies.look_at(work / DATABASE_NAME)
        _single(work)
        there = {name: path for name, path in places(settings).items() if path.exists()}
        public = {name: path for name, path in there.items() if name in PUBLIC}
        keys = {name: path for name, path in there.items() if name in KEYS}
        parts = {DATABASE_NAME: work / DATABASE_NAME, **public}
        manifest = Manifest(
            made_ms=now_ms,
            made=_moment(now_ms).isoformat(timespec="seconds"),
            program=version("usance"),
            parts={name: part_of(path) for name, path in parts.items()},
            violations=len(found.violations),
            **{name: value for name, value in vars(found).items() if name != "violations"},
        )
        if with_keys:
            packed = _pack(work / "keys", keys, None)
            manifest = replace(manifest, keys={"sha256": part_of(packed).sha256, "names": ",".join(keys)})
            packed.rename(keys_file)
        # Last: who finds it finds all that belongs to it.
        _pack(work / "backup", parts, manifest).rename(file)
        copies.sync(file.absolute().parent)
    return Made(
        file=file,
        keys_file=keys_file if with_keys else None,
        manifest=manifest,
        violations=found.violations,
    )


def _single(work: Path) -> None:
    """All of it is in one file: nobody has it open any more."""
    for beside in ("-wal", "-shm"):
        (work / f"{DATABASE_NAME}{beside}").unlink(missing_ok=True)


def _pack(target: Path, parts: Mapping[str, Path], manifest: Manifest | None) -> Path:
    file = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(file, "wb") as out, tarfile.open(fileobj=out, mode="w") as tar:
        if manifest is not None:
            text = target.with_name(MANIFEST_NAME)
            text.write_text(manifest.to_json(), encoding="utf-8")
            _add(tar, MANIFEST_NAME, text)
        for name, path in parts.items():
            _add(tar, name, path)
    copies.sync(target)
    return target


def _add(tar: tarfile.TarFile, name: str, path: Path) -> None:
    """Whose it was here says nothing where it is unpacked."""
    with path.open("rb") as file:
        entry = tar.gettarinfo(arcname=name, fileobj=file)
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        entry.mode = 0o600
        tar.addfile(entry, file)


def _moment(now_ms: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(now_ms / 1_000, dt.UTC)
