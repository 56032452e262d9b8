"""The command `usance-coordinator`."""

import argparse
import asyncio
import gc
import json
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from sqlalchemy.exc import DBAPIError

from coordinator import app, doctor, rotation, settings
from coordinator.commands import Exit, parser
from coordinator.domain.checkup import examine
from coordinator.keeping import commands as keeping
from coordinator.keeping import report
from runtime import logs
from runtime.clock import SystemClock
from runtime.findings import Verdict, as_json, as_text, worst
from runtime.text import printable

# Where a package puts the unit of the service.
UNITS = tuple(
    Path(f"{folder}/systemd/system/usance-coordinator.service") for folder in ("/usr/lib", "/lib", "/etc")
)
# A commit has some hundred thousand values that live until its end, and thousands of streams live for
# days. By Python's own measure they would be searched for cycles after every 700: a third of the time that
# a usage record takes, and pauses that beats would feel.
YOUNG_MAX, OLDER_AFTER, OLDEST_AFTER = 50_000, 20, 20

NEXT_STEPS = """\
Made the coordinator's authority, keys, database and operator in {data_dir}.
Its settings are in {config}, each with what it is for.

Next:
  {run}
  usance login --server {market} --ca {data_dir}/ca.pem < {token}
  usance admin account-create alice --role buyer

If one of them fails: usance-coordinator doctor
Keep {data_dir}/token.key, {ca_key} and {secrets_key} secret, and back them up, the last one apart
from the database.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    parsed = parser().parse_args(arguments)
    if parsed.command == "settings":
        _say(settings.TEMPLATE)
        return Exit.OK
    try:
        _step_down(parsed.data_dir)
        return _run(parsed)
    except (settings.SettingsError, ValueError) as error:
        return _fail(str(error))
    except DBAPIError as error:
        return _fail(f"the database can't be used: {' '.join(str(error.orig).split())}", Exit.FAILED)
    except OSError as error:
        return _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))


def _step_down(data_dir: Path) -> None:
    """Root works as the owner of the data folder: the service could not write what it made there."""
    if os.geteuid() != 0 or not data_dir.exists():
        return
    owner = data_dir.stat()
    if owner.st_uid == 0:
        return
    os.setgroups([])
    os.setgid(owner.st_gid)
    os.setuid(owner.st_uid)


def _settings(parsed: argparse.Namespace) -> settings.Settings:
    overrides = {
        item.name: getattr(parsed, item.name, None)
        for item in fields(settings.Settings)
        if item.name != "data_dir"
    }
    return settings.load(parsed.data_dir, overrides, os.environ)


def _run(parsed: argparse.Namespace) -> int:
    if parsed.command == "doctor":
        return _doctor(parsed)
    found = _settings(parsed)
    match parsed.command:
        case "init":
            return _init(found)
        case "health":
            trouble = doctor.answer(found.market, found.data_dir)
            _say(trouble or "it serves")
            return Exit.FAILED if trouble else Exit.OK
        case "audit":
            return _audit(found)
        case "rotate-ca":
            _say(rotation.run(found, rotation.Step(parsed.step), SystemClock(), force=parsed.force))
            return Exit.OK
        case "rotate-secrets":
            _say(rotation.run_secrets(found, rotation.Step(parsed.step)))
            return Exit.OK
        case _ if hasattr(parsed, "keeps"):
            return keeping.run(parsed, found, SystemClock().wall_ms())
        case _:
            return _serve(found, take_over=parsed.take_over)


def _init(found: settings.Settings) -> int:
    token = app.initialise(found)
    is_service = found.data_dir == settings.DEFAULT_DATA_DIR and any(unit.exists() for unit in UNITS)
    run = f"usance-coordinator run --data-dir {found.data_dir}"
    _say(
        NEXT_STEPS.format(
            data_dir=found.data_dir,
            config=settings.config_path(found.data_dir),
            run="systemctl enable --now usance-coordinator" if is_service else run,
            market=found.market_public or found.market,
            token=token,
            ca_key=found.ca_key_source.name,
            secrets_key=found.secrets_key_source.name,
        )
    )
    return Exit.OK


def _doctor(parsed: argparse.Namespace) -> int:
    """Fails where something does not work; what is only doubted is no failure."""
    error = ""
    try:
        found = _settings(parsed)
    except settings.SettingsError as wrong:
        found, error = settings.Settings(data_dir=parsed.data_dir), str(wrong)
    findings = examine(doctor.look(found, error, SystemClock()))
    _say(json.dumps(as_json(findings), indent=2) if parsed.json else as_text(findings))
    return Exit.FAILED if worst(findings) is Verdict.BAD else Exit.OK


def _audit(found: settings.Settings) -> int:
    violations, checked, restored = app.run_audit(found)
    for violation in violations:
        _say(violation)
    print(  # noqa: T201 - a command line speaks
        f"{checked} transfers checked, {len(violations)} violations", file=sys.stderr
    )
    for line in report.of_aftermath(restored):
        print(line, file=sys.stderr)  # noqa: T201 - as above
    return Exit.FAILED if violations else Exit.OK


def _serve(found: settings.Settings, *, take_over: bool) -> int:
    logs.set_up(as_json=found.log_json)
    gc.freeze()
    gc.set_threshold(YOUNG_MAX, OLDER_AFTER, OLDEST_AFTER)
    logging.getLogger("alembic").setLevel(logging.WARNING)  # what it finds at each start is no news
    return asyncio.run(app.serve(found, take_over=take_over))


def _fail(message: str, code: Exit = Exit.USAGE) -> int:
    for line in message.splitlines():
        print(f"usance-coordinator: {printable(line)}", file=sys.stderr)  # noqa: T201 - a command line speaks
    return code


def _say(text: str) -> None:
    for line in text.splitlines():
        print(printable(line))  # noqa: T201 - a command line speaks


if __name__ == "__main__":
    sys.exit(main())
