"""The command `usance-agent`."""

import argparse
import asyncio
import os
import sys
from dataclasses import replace

from agent import commands, prices
from agent import settings as settings_file
from agent.commands import Exit
from agent.settings import Settings, SettingsError
from runtime import logs
from runtime.text import printable


def main(arguments: list[str] | None = None) -> int:
    parser = commands.parser()
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
        if chosen.command == "doctor":
            from agent import counter

            settings = Settings(state_dir=chosen.state_dir or Settings().state_dir)
            return Exit(counter.doctor(chosen, settings, str(error)))
        return _fail(Exit.USAGE, str(error))
    logs.set_up(as_json=chosen.log_json, level=chosen.log_level)
    match chosen.command:
        case "enroll":
            return _enroll(settings, chosen.token)
        case "run":
            return _run(settings, chosen)
        case _:
            from agent import counter

            try:
                return Exit(counter.serve(chosen, settings))
            except counter.CounterError as error:
                return _fail(Exit(error.code), str(error))


def _settings(chosen: argparse.Namespace) -> Settings:
    """The file's settings with the flags put over them."""
    settings = settings_file.load(chosen.config)
    if chosen.state_dir is not None:
        settings = replace(settings, state_dir=chosen.state_dir.absolute())
    try:
        named = prices.load(settings.state_dir)
    except (OSError, ValueError) as error:
        raise SettingsError(f"the prices named at this machine can't be read: {error}") from error
    settings = replace(settings, prices_micro=prices.over(settings.prices_micro, named))
    if chosen.command != "run":
        return settings
    settings = _with_flags(settings, chosen)
    settings_file.check(settings)
    return settings


def _with_flags(settings: Settings, chosen: argparse.Namespace) -> Settings:
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
    return settings


def _enroll(settings: Settings, token: str) -> int:
    import grpc

    from agent import app, counter
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
    lacks = counter.lacks(settings)
    if lacks:
        print(f"enrolled as host {identity.host_id}; but before it can take jobs:")  # noqa: T201
        print(lacks)  # noqa: T201
        print("then: usance-agent doctor, and usance-agent run")  # noqa: T201
    else:
        print(f"enrolled as host {identity.host_id}; now run: usance-agent run")  # noqa: T201
    return Exit.OK


def _run(settings: Settings, chosen: argparse.Namespace) -> int:
    from agent import app
    from agent.executor.ports import ExecutorError
    from agent.gpu.ports import GpuError
    from agent.link import identity as identities
    from runtime.tracing import TracesError

    try:
        lock = app.hold_state_dir(settings.state_dir)
    except app.AlreadyRunningError as error:
        return _fail(Exit.ALREADY_RUNNING, str(error))
    try:
        identity = identities.load(settings.state_dir)
        if identity is None:
            return _fail(Exit.NOT_ENROLLED, f"no identity in {settings.state_dir}; usance-agent enroll TOKEN")
        asyncio.run(app.run(settings, identity, lambda: _settings(chosen)))
    except (GpuError, ExecutorError, TracesError) as error:
        return _fail(Exit.FAILED, str(error))
    finally:
        os.close(lock)
    return Exit.OK


def _fail(code: Exit, message: str) -> int:
    for line in message.splitlines():
        print(f"usance-agent: {printable(line)}", file=sys.stderr)  # noqa: T201
    return code


if __name__ == "__main__":
    sys.exit(main())
