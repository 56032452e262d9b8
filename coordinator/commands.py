"""The commands of `usance-coordinator`, their flags, and what their exit codes say."""

import argparse
from enum import IntEnum
from importlib.metadata import version
from pathlib import Path

from coordinator.keeping import commands as keeping
from coordinator.rotation import Step
from coordinator.settings import DEFAULT_DATA_DIR


class Exit(IntEnum):
    """What the exit code says."""

    OK = 0
    FAILED = 1
    USAGE = 2


MEANINGS: dict[Exit, str] = {
    Exit.OK: "It went well; of `run`: somebody told it to go.",
    Exit.FAILED: "`audit`, `doctor`, `backup` or `restore` found something bad; the database is away;"
    " another took over `run`.",
    # argparse says 2, too.
    Exit.USAGE: "Arguments or settings are wrong, or there is nothing to work on; the message says what.",
}


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="usance-coordinator", description="Matches buyers and sellers of GPU time, and keeps the books."
    )
    made.add_argument("--version", action="version", version=f"%(prog)s {version('usance')}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--data-dir",
        type=Path,
        default=DEFAULT_DATA_DIR,
        metavar="DIR",
        help=f"where keys, certificates and SQLite's database are (default: {DEFAULT_DATA_DIR})",
    )
    common.add_argument(
        "--database", metavar="URL", help="postgresql+psycopg://… instead of SQLite in the data folder"
    )
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND")
    init = commands.add_parser(
        "init", parents=[common], help="make a new coordinator's settings, authority, database and operator"
    )
    run = commands.add_parser("run", parents=[common], help="serve until stopped by SIGTERM or SIGINT")
    doctor = commands.add_parser(
        "doctor", parents=[common], help="look for what is wrong; exits 1 if something is bad"
    )
    doctor.add_argument("--json", action="store_true", help="for programs")
    commands.add_parser(
        "audit", parents=[common], help="check every invariant of the books; exits 1 if one is violated"
    )
    rotate = commands.add_parser(
        "rotate-ca", parents=[common], help="have another authority follow the one there is"
    )
    rotate.add_argument(
        "step", choices=list(Step), help="begin: from the next start on both are trusted; finish: only it"
    )
    rotate.add_argument("--force", action="store_true", help="finish although some hosts will be locked out")
    secrets = commands.add_parser(
        "rotate-secrets", parents=[common], help="have another key seal jobs' secrets in the database"
    )
    secrets.add_argument(
        "step",
        choices=list(Step),
        help="begin: from the next start on a new key seals; finish: the old one goes",
    )
    health = commands.add_parser(
        "health",
        parents=[common],
        help="ask the coordinator of this machine whether it serves; exits 1 if not",
    )
    commands.add_parser("settings", help="print a commented settings file")
    keeping.add_to(commands, [common])
    for command in (init, run, doctor, health):
        command.add_argument("--market", metavar="ADDRESS", help="address for people, host:port")
        command.add_argument("--hosts", metavar="ADDRESS", help="address for agents, host:port")
    run.add_argument("--market-public", metavar="ADDRESS", help="the market's address as seen from outside")
    run.add_argument("--hosts-public", metavar="ADDRESS", help="the agents' address as seen from outside")
    run.add_argument(
        "--beat-interval-ms", type=int, metavar="MS", help="how often a host says that it is alive"
    )
    run.add_argument(
        "--reconnect-window-ms", type=int, metavar="MS", help="how long a silent host is waited for"
    )
    run.add_argument("--fee-ppm", type=int, metavar="PPM", help="the platform's part of each charge")
    run.add_argument(
        "--metrics", metavar="ADDRESS", help="where a Prometheus may read the figures, host:port"
    )
    run.add_argument(
        "--take-over", action="store_true", help="relieve the coordinator that runs, without a job noticing"
    )
    run.add_argument("--log-json", action="store_true", default=None, help="logs as JSON")
    return made
