"""The commands of `usance-agent`, their flags, and what their exit codes say."""

import argparse
from enum import IntEnum
from pathlib import Path

from agent.settings import ExecutorKind


class Exit(IntEnum):
    """What the exit code says."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_ENROLLED = 3
    REFUSED = 4
    ALREADY_RUNNING = 5


MEANINGS: dict[Exit, str] = {
    Exit.OK: "It went well; of `run`: somebody told it to go. Jobs that run go on.",
    Exit.FAILED: "It can't work here: no GPU, no engine, or its files can't be read; the message says why.",
    # argparse says 2, too.
    Exit.USAGE: "Arguments, settings or the enrolment token are wrong; nothing was done.",
    Exit.NOT_ENROLLED: "This machine is no host of a market yet: `usance-agent enroll TOKEN`.",
    Exit.REFUSED: "The coordinator can't be reached, or refuses to enrol.",
    Exit.ALREADY_RUNNING: "Another agent works with the same state folder.",
}


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="usance-agent", description="Sells GPU time of this machine.")
    made.add_argument("--version", action="store_true", help="print the version")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--config", type=Path, metavar="FILE", help="settings (default: /etc/usance/agent.toml)"
    )
    common.add_argument("--state-dir", type=Path, metavar="DIR", help="where identity and journals are kept")
    common.add_argument("--log-level", default="INFO", choices=["DEBUG", "INFO", "WARNING", "ERROR"])
    common.add_argument("--log-json", action="store_true", help="log as JSON lines")
    commands = made.add_subparsers(dest="command", metavar="COMMAND")
    enroll = commands.add_parser("enroll", parents=[common], help="make this machine a host of the market")
    enroll.add_argument("token", help='the enrolment token, or "-" to read it from standard input')
    run = commands.add_parser("run", parents=[common], help="offer this machine and run jobs")
    run.add_argument("--executor", type=ExecutorKind, choices=list(ExecutorKind), help="what runs jobs")
    run.add_argument("--docker-host", metavar="URL")
    run.add_argument("--allow-process-executor", action="store_true", help="run jobs WITHOUT isolation")
    run.add_argument("--trusted-account", action="append", default=[], metavar="NAME")
    run.add_argument("--price", metavar="CREDITS", help="of one GPU for one hour, for every model")
    run.add_argument("--simulated-gpus", type=int, metavar="N", help="offer N GPUs that do not exist")
    run.add_argument("--region", metavar="NAME")
    status = commands.add_parser("status", parents=[common], help="say what this machine does and earns")
    status.add_argument("--json", action="store_true")
    status.add_argument("--watch", action="store_true", help="again every two seconds, until interrupted")
    doctor = commands.add_parser("doctor", parents=[common], help="look for what is wrong with this machine")
    doctor.add_argument("--json", action="store_true")
    doctor.add_argument(
        "--bundle", type=Path, metavar="FILE", help="also write all that a helper would ask for, no secrets"
    )
    commands.add_parser("pause", parents=[common], help="take no new jobs; what runs goes on")
    commands.add_parser("resume", parents=[common], help="take jobs again")
    commands.add_parser("reclaim", parents=[common], help="take no new jobs, and end what runs in time")
    drain = commands.add_parser("drain", parents=[common], help="take no new jobs, and wait for what runs")
    drain.add_argument("--within", type=int, metavar="SECONDS", help="wait no longer")
    price = commands.add_parser("price", parents=[common], help="say or show what GPUs cost")
    price.add_argument("model", nargs="?", help='as in status; "*" for every model not named')
    price.add_argument("credits", nargs="?", help='for one GPU for one hour, "0.45"; 0 for not for sale')
    commands.add_parser("reload", parents=[common], help="have the agent read its settings again")
    uninstall = commands.add_parser(
        "uninstall", parents=[common], help="leave the market, and nothing behind"
    )
    uninstall.add_argument("--end-jobs", action="store_true", help="end what runs, at your cost")
    uninstall.add_argument(
        "--keep-state", action="store_true", help="keep identity, journals and settings for another time"
    )
    uninstall.add_argument("--yes", action="store_true", help="don't ask")
    commands.add_parser("settings", help="print a commented settings file")
    return made
