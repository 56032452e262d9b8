"""The commands that keep a coordinator's data: what they take, and what they say."""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from coordinator.keeping import archive, backup, export, report, restore
from coordinator.keeping.manifest import DamagedError, KeepingError
from coordinator.settings import Settings, SettingsError
from coordinator.store.migrate import upgrade
from coordinator.store.transaction import SqlTransaction
from ledger.engine import make_engine, reading

# As `coordinator.commands` says.
EXIT_DONE, EXIT_FAILED, EXIT_REFUSED = 0, 1, 2
Command = Callable[[argparse.Namespace, Settings, int], int]


def add_to(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", parents: list[argparse.ArgumentParser]
) -> None:
    """Each with what is to be called as `keeps`."""
    made = commands.add_parser(
        "backup", parents=parents, help="copy database, authority and settings while the market runs"
    )
    made.add_argument("file", nargs="?", type=Path, help="usance-DATE-TIME.tar in this folder, if not named")
    made.add_argument("--no-keys", action="store_true", help="leave out the keys, which go into FILE.keys")
    made.set_defaults(keeps=_backup)
    back = commands.add_parser("restore", parents=parents, help="bring a coordinator back from its backup")
    back.add_argument("file", nargs="?", type=Path, help="what `backup` made")
    back.add_argument("--keys", type=Path, help="the file of its keys; FILE.keys, if not named")
    back.add_argument("--replace", action="store_true", help="put aside the database that is there")
    back.add_argument(
        "--without-keys", action="store_true", help="become another authority: all machines are enrolled anew"
    )
    back.add_argument(
        "--revoke-tokens", action="store_true", help="no access token of before is good any longer"
    )
    back.add_argument(
        "--mark-only", action="store_true", help="the database is back already: say so to everybody in it"
    )
    back.set_defaults(keeps=_restore)
    old = commands.add_parser(
        "archive", parents=parents, help="move what is old into files, or read it there"
    )
    what = old.add_mutually_exclusive_group(required=True)
    what.add_argument("--before", metavar="MONTH", help="of jobs that ended before 2026-01, say")
    what.add_argument("--show", metavar="JOB", help="print what has left of a job, a line of JSON each")
    what.add_argument("--check", action="store_true", help="can all that has left be read back as it was?")
    old.add_argument("--to", type=Path, metavar="DIR", help="where the files are; archive in the data folder")
    old.set_defaults(keeps=_archive)
    out = commands.add_parser("export", parents=parents, help="the books for other programs")
    out.add_argument("what", choices=("ledger", "bills"), help="every transfer, or what each attempt cost")
    out.add_argument("--format", choices=export.FORMATS, default="csv", help="csv if not named")
    out.set_defaults(keeps=_export)
    for parser in (made, back):
        parser.add_argument("--json", action="store_true", help="what was done, as JSON")


def run(parsed: argparse.Namespace, settings: Settings, now_ms: int) -> int:
    """The exit status; what went wrong is told in a sentence."""
    command: Command = parsed.keeps
    try:
        return command(parsed, settings, now_ms)
    except KeepingError as error:
        _say(f"usance-coordinator: {error}", sys.stderr)
        return EXIT_REFUSED
    except (DamagedError, OSError) as error:
        _say(f"usance-coordinator: {error}", sys.stderr)
        return EXIT_FAILED


def _backup(parsed: argparse.Namespace, settings: Settings, now_ms: int) -> int:
    if not (settings.data_dir / "ca.pem").exists():
        raise SettingsError(
            f"{settings.data_dir}: no coordinator was made here; see: usance-coordinator init"
        )
    file = parsed.file or backup.default_name(now_ms)
    made = backup.make(settings, file, with_keys=not parsed.no_keys, now_ms=now_ms, progress=_progress)
    settings.backup_mark.touch()
    if parsed.json:
        _json(
            {
                "file": str(made.file),
                "keys_file": None if made.keys_file is None else str(made.keys_file),
                "manifest": asdict(made.manifest),
                "violations": list(made.violations),
            }
        )
    else:
        _say(report.of_backup(made))
    return EXIT_FAILED if made.violations else EXIT_DONE


def _restore(parsed: argparse.Namespace, settings: Settings, now_ms: int) -> int:
    options = restore.Options(
        keys_file=parsed.keys,
        replace=parsed.replace,
        without_keys=parsed.without_keys,
        revoke_tokens=parsed.revoke_tokens,
    )
    if parsed.mark_only == (parsed.file is not None):
        raise KeepingError("restore: name a backup, or --mark-only")
    if parsed.mark_only:
        came = restore.mark_only(settings, options, now_ms)
    else:
        came = restore.restore(settings, parsed.file, options, now_ms)
    if parsed.json:
        restored = {**vars(came.restored), "seal_hash": came.restored.seal_hash.hex()}
        fields = {**vars(came), "restored": restored, "unknown_ms": came.restored.unknown_ms}
        del fields["operator_token"]
        _json({**fields, "manifest": None if came.manifest is None else asdict(came.manifest)})
    else:
        _say(report.of_restore(came, settings.data_dir))
    return EXIT_FAILED if came.violations else EXIT_DONE


def _archive(parsed: argparse.Namespace, settings: Settings, now_ms: int) -> int:
    folder = parsed.to or settings.data_dir / "archive"
    with _opened(settings) as engine:
        if parsed.before:
            before_ms = archive.month_start_ms(parsed.before)
            if before_ms > now_ms:
                raise KeepingError(f"{parsed.before} has not begun yet")
            jobs = 0
            for left in archive.archive(engine, folder, before_ms, now_ms):
                jobs += left.jobs
                _say(f"{folder / left.file}: {left.jobs} jobs, {left.lines} lines")
            _say(f"{jobs} jobs left the database")
            return EXIT_DONE
        with reading(engine) as connection:
            tx = SqlTransaction(connection)
            if parsed.show:
                for line in archive.look_up(tx, folder, parsed.show):
                    _say(json.dumps(line))
                return EXIT_DONE
            found, looked_at = archive.check(tx, folder)
    for one in found:
        _say(one)
    _say(f"{looked_at} parts of jobs looked up, {len(found)} not as they were", sys.stderr)
    return EXIT_FAILED if found else EXIT_DONE


def _export(parsed: argparse.Namespace, settings: Settings, now_ms: int) -> int:  # noqa: ARG001 - as all commands
    write = export.ledger_lines if parsed.what == "ledger" else export.bill_lines
    with _opened(settings) as engine, reading(engine) as connection:
        for line in write(connection, parsed.format):
            sys.stdout.write(line)
    return EXIT_DONE


@contextmanager
def _opened(settings: Settings) -> Iterator[Engine]:
    if not (settings.data_dir / "ca.pem").exists():
        raise SettingsError(
            f"{settings.data_dir}: no coordinator was made here; see: usance-coordinator init"
        )
    engine = make_engine(settings.database_url)
    try:
        upgrade(engine)
        yield engine
    finally:
        engine.dispose()


def _progress(done: int, whole: int) -> None:
    """Only for who watches."""
    if sys.stderr.isatty():
        end = "\n" if done == whole else ""
        print(f"\r{done:,} of {whole:,} pages", end=end, file=sys.stderr, flush=True)  # noqa: T201 - as it says


def _json(content: dict[str, Any]) -> None:
    _say(json.dumps(content, indent=2, default=str, sort_keys=True))


def _say(text: str, where: Any = None) -> None:  # noqa: ANN401 - whatever can be printed to
    print(text, file=where or sys.stdout)
