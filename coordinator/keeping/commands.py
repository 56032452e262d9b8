"""The commands that keep a coordinator's data: what they take, and what they say."""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from coordinator.keeping import backup, report, restore
from coordinator.keeping.manifest import DamagedError, KeepingError
from coordinator.settings import LAST_BACKUP_NAME, Settings, SettingsError

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
    (settings.data_dir / LAST_BACKUP_NAME).write_text(f"{now_ms}\n", encoding="ascii")
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


def _progress(done: int, whole: int) -> None:
    """Only for who watches."""
    if sys.stderr.isatty():
        end = "\n" if done == whole else ""
        print(f"\r{done:,} of {whole:,} pages", end=end, file=sys.stderr, flush=True)  # noqa: T201 - as it says


def _json(content: dict[str, Any]) -> None:
    _say(json.dumps(content, indent=2, default=str, sort_keys=True))


def _say(text: str, where: Any = None) -> None:  # noqa: ANN401 - whatever can be printed to
    print(text, file=where or sys.stdout)
