"""The options of what only the job may see, and who fetches its image. Their values stand in no command line:
they come from files, from the environment or from standard input."""

import os
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path

import click

from cli.commands.asked import TEXT
from cli.errors import WrongUse
from cli.parse import parse_secret
from cli.session import Typed
from cli.wishes import Confidential

SECRET = Typed("NAME[=FILE]", parse_secret)
_SECRET_BYTES_MAX = 32_768
_PASSWORD_BYTES_MAX = 4_096


def confidential_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command `confidential`, made of its options."""

    @click.option(
        "--secret",
        "secrets",
        type=SECRET,
        multiple=True,
        help="A file /run/secrets/NAME for the job alone: FILE's, or the variable NAME's; repeatable.",
    )
    @click.option(
        "--registry-user", type=TEXT, default="", help="Whom the image's registry gives the image to."
    )
    @click.option(
        "--registry-password-file",
        type=TEXT,
        default="",
        help="The file with that user's password or token, - for standard input.",
    )
    @wraps(command)
    def with_confidential(
        *positional: object,
        secrets: tuple[tuple[str, str], ...],
        registry_user: str,
        registry_password_file: str,
        **others: object,
    ) -> None:
        if bool(registry_user) is not bool(registry_password_file):
            raise WrongUse("--registry-user and --registry-password-file go together")
        if [source for _, source in secrets].count("-") + (registry_password_file == "-") > 1:  # noqa: S105 - where it is
            raise WrongUse("standard input can be read once; give the others as files")
        password = _content(registry_password_file, _PASSWORD_BYTES_MAX) if registry_user else b""
        confidential = Confidential(
            secrets=tuple((name, _secret(name, source)) for name, source in secrets),
            registry_user=registry_user,
            registry_password=_text(password),
        )
        command(*positional, confidential=confidential, **others)

    return with_confidential


def _secret(name: str, source: str) -> bytes:
    if source:
        return _content(source, _SECRET_BYTES_MAX)
    value = os.environb.get(name.encode())
    if value is None:
        raise WrongUse(f"--secret {name}: there is no variable {name}; name a file, like {name}=FILE")
    return value


def _content(source: str, bytes_max: int) -> bytes:
    try:
        with sys.stdin.buffer if source == "-" else Path(source).open("rb") as file:
            content = file.read(bytes_max + 1)
    except OSError as error:
        raise WrongUse(f"{source} can't be read: {error.strerror}") from error
    if len(content) > bytes_max:
        raise WrongUse(f"{source} is longer than {bytes_max} bytes")
    return content


def _text(password: bytes) -> str:
    """Without the line feed that an editor leaves."""
    try:
        return password.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise WrongUse("the registry's password is not UTF-8") from None
