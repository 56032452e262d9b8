"""usance-coordinator: init, run, audit, rotate-ca."""

import argparse
import asyncio
import gc
import logging
import sys
from collections.abc import Sequence
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path

from coordinator import app, rotation, settings
from runtime import logs
from runtime.clock import SystemClock

EXIT_WRONG_USE = 2
EXIT_VIOLATIONS = 1
# A commit has some hundred thousand values that live until its end, and thousands of streams live for
# days. By Python's own measure they would be searched for cycles after every 700: a third of the time that
# a usage record takes, and pauses that beats would feel.
YOUNG_MAX, OLDER_AFTER, OLDEST_AFTER = 50_000, 20, 20

NEXT_STEPS = """\
Made the coordinator's authority, keys, database and operator in {data_dir}.

Next:
  usance-coordinator run --data-dir {data_dir}
  usance login --server {market} --ca {data_dir}/ca.pem < {token}
  usance admin account-create alice --role buyer

Keep {data_dir}/ca.key, {data_dir}/token.key and {secrets_key} secret, and back them up, the last one apart
from the database.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    parsed = _parser().parse_args(arguments)
    overrides = {
        item.name: getattr(parsed, item.name, None)
        for item in fields(settings.Settings)
        if item.name != "data_dir"
    }
    try:
        found = settings.load(parsed.data_dir, overrides)
        return _run(parsed, found)
    except (settings.SettingsError, FileExistsError, FileNotFoundError, ValueError) as error:
        print(f"usance-coordinator: {error}", file=sys.stderr)  # noqa: T201 - a command line speaks
        return EXIT_WRONG_USE


def _run(parsed: argparse.Namespace, found: settings.Settings) -> int:
    command = parsed.command
    if command == "init":
        token = app.initialise(found)
        print(  # noqa: T201 - a command line speaks
            NEXT_STEPS.format(
                data_dir=found.data_dir,
                market=found.market,
                token=token,
                secrets_key=found.secrets_key_path,
            ),
            end="",
        )
        return 0
    if command == "audit":
        violations, checked = app.run_audit(found)
        for violation in violations:
            print(violation)  # noqa: T201 - as above
        print(  # noqa: T201 - as above
            f"{checked} transfers checked, {len(violations)} violations", file=sys.stderr
        )
        return EXIT_VIOLATIONS if violations else 0
    if command == "rotate-ca":
        step = rotation.Step(parsed.step)
        print(rotation.run(found, step, SystemClock(), force=parsed.force), end="")  # noqa: T201 - as above
        return 0
    logs.set_up(as_json=found.log_json)
    gc.freeze()
    gc.set_threshold(YOUNG_MAX, OLDER_AFTER, OLDEST_AFTER)
    logging.getLogger("alembic").setLevel(logging.WARNING)  # what it finds at each start is no news
    return asyncio.run(app.serve(found, take_over=parsed.take_over))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="usance-coordinator", description="Matches buyers and sellers of GPU time, and keeps the books."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {version('usance')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    init = commands.add_parser("init", help="make a new coordinator's authority, database and operator")
    run = commands.add_parser("run", help="serve until stopped by SIGTERM or SIGINT")
    audit = commands.add_parser(
        "audit", help="check every invariant of the books; exits 1 if one is violated"
    )
    rotate = commands.add_parser("rotate-ca", help="have another authority follow the one there is")
    rotate.add_argument(
        "step",
        choices=list(rotation.Step),
        help="begin: from the next start on both are trusted; finish: only it",
    )
    rotate.add_argument("--force", action="store_true", help="finish although some hosts will be locked out")
    for command in (init, run, audit, rotate):
        command.add_argument("--data-dir", type=Path, default=Path("/var/lib/usance-coordinator"))
        command.add_argument("--database", help="postgresql+psycopg://… instead of SQLite in the data folder")
    for command in (init, run):
        command.add_argument("--market", help="address for people, host:port")
        command.add_argument("--hosts", help="address for agents, host:port")
    run.add_argument("--market-public", help="the market's address as seen from outside")
    run.add_argument("--hosts-public", help="the agents' address as seen from outside")
    run.add_argument("--beat-interval-ms", type=int, help="how often a host says that it is alive")
    run.add_argument("--reconnect-window-ms", type=int, help="how long a silent host is waited for")
    run.add_argument("--fee-ppm", type=int, help="the platform's part of each charge")
    run.add_argument("--metrics", help="where a Prometheus may read the figures, host:port")
    run.add_argument(
        "--take-over", action="store_true", help="relieve the coordinator that runs, without a job noticing"
    )
    run.add_argument("--log-json", action="store_true", default=None, help="logs as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
