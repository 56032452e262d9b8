"""The command `usance-agent`."""

import argparse
import asyncio
import json
import os
import sys
from dataclasses import replace
from enum import IntEnum
from pathlib import Path

from agent import settings as settings_file
from agent.settings import ExecutorKind, Settings, SettingsError
from runtime import logs


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


def main(arguments: list[str] | None = None) -> int:
    parser = _parser()
    chosen = parser.parse_args(arguments)
    if chosen.version:
        from agent.app import version

        print(f"usance-agent {version()}")  # noqa: T201
        return Exit.OK
    if chosen.command is None:
        parser.print_help()
        return Exit.USAGE
    if chosen.command == "settings":
        print(settings_file.EXAMPLE, end="")  # noqa: T201
        return Exit.OK
    try:
        settings = _settings(chosen)
    except SettingsError as error:
        return _fail(Exit.USAGE, str(error))
    logs.set_up(as_json=chosen.log_json, level=chosen.log_level)
    match chosen.command:
        case "enroll":
            return _enroll(settings, chosen.token)
        case "run":
            return _run(settings)
        case _:
            return _status(settings, as_json=chosen.json)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="usance-agent", description="Sells GPU time of this machine.")
    parser.add_argument("--version", action="store_true", help="print the version")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--config", type=Path, metavar="FILE", help="settings (default: /etc/usance/agent.toml)"
    )
    common.add_argument("--state-dir", type=Path, metavar="DIR", help="where identity and journals are kept")
    common.add_argument("--log-level", default="INFO", choices=["DEBUG", "INFO", "WARNING", "ERROR"])
    common.add_argument("--log-json", action="store_true", help="log as JSON lines")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
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
    status = commands.add_parser("status", parents=[common], help="say what this machine holds")
    status.add_argument("--json", action="store_true")
    commands.add_parser("settings", help="print a commented settings file")
    return parser


def _settings(chosen: argparse.Namespace) -> Settings:
    """The file's settings with the flags put over them."""
    settings = settings_file.load(chosen.config)
    if chosen.state_dir is not None:
        settings = replace(settings, state_dir=chosen.state_dir.absolute())
    if chosen.command != "run":
        return settings
    if chosen.executor is not None:
        settings = replace(settings, executor=chosen.executor)
    if chosen.docker_host is not None:
        settings = replace(settings, docker_host=chosen.docker_host)
    if chosen.allow_process_executor:
        settings = replace(settings, allow_process_executor=True)
    if chosen.trusted_account:
        accounts = (*settings.trusted_accounts, *chosen.trusted_account)
        settings = replace(settings, trusted_accounts=accounts)
    if chosen.simulated_gpus is not None:
        simulated = replace(settings.simulated_gpus, count=chosen.simulated_gpus)
        settings = replace(settings, simulated_gpus=simulated)
    if chosen.region is not None:
        settings = replace(settings, region=chosen.region)
    if chosen.price is not None:
        settings = settings_file.with_price(settings, chosen.price)
    settings_file.check(settings)
    return settings


def _enroll(settings: Settings, token: str) -> int:
    import grpc

    from agent import app
    from agent.domain.token import TokenError, parse
    from agent.link import enroll

    try:
        parsed = parse(sys.stdin.readline() if token == "-" else token)  # noqa: S105
        lock = app.hold_state_dir(settings.state_dir)
    except TokenError as error:
        return _fail(Exit.USAGE, str(error))
    except app.AlreadyRunningError as error:
        return _fail(Exit.ALREADY_RUNNING, str(error))
    try:
        identity = asyncio.run(enroll.enroll(settings.state_dir, parsed))
    except grpc.RpcError as error:
        from agent.link.client import describe

        return _fail(Exit.REFUSED, f"enrolling at {parsed.market} failed: {describe(error)}")
    finally:
        os.close(lock)
    print(f"enrolled as host {identity.host_id}; now run: usance-agent run")  # noqa: T201
    return Exit.OK


def _run(settings: Settings) -> int:
    from agent import app
    from agent.executor.ports import ExecutorError
    from agent.gpu.ports import GpuError
    from agent.link import identity as identities

    try:
        lock = app.hold_state_dir(settings.state_dir)
    except app.AlreadyRunningError as error:
        return _fail(Exit.ALREADY_RUNNING, str(error))
    try:
        identity = identities.load(settings.state_dir)
        if identity is None:
            return _fail(Exit.NOT_ENROLLED, f"no identity in {settings.state_dir}; usance-agent enroll TOKEN")
        asyncio.run(app.run(settings, identity))
    except (GpuError, ExecutorError) as error:
        return _fail(Exit.FAILED, str(error))
    finally:
        os.close(lock)
    return Exit.OK


def _status(settings: Settings, *, as_json: bool) -> int:
    from agent import status

    try:
        found = status.read(settings.state_dir)
    except OSError as error:
        return _fail(Exit.FAILED, f"{settings.state_dir} can't be read: {error.strerror}")
    print(json.dumps(found.as_json(), indent=2) if as_json else found.as_text())  # noqa: T201
    return Exit.OK if found.host_id else Exit.NOT_ENROLLED


def _fail(code: Exit, message: str) -> int:
    for line in message.splitlines():
        print(f"usance-agent: {line}", file=sys.stderr)  # noqa: T201
    return code


if __name__ == "__main__":
    sys.exit(main())
