"""Keys that are read from files and from commands, and what is said where that can't be."""

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from runtime import private
from runtime.private import PrivateError, Source

CANARY = "canary-9f21"


def python(script: str) -> list[str]:
    return [sys.executable, "-c", script]


def test_a_file_that_others_may_read_holds_no_secret(tmp_path: Path) -> None:
    path = tmp_path / "key"
    private.write(path, b"secret")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Source(path=path).read() == b"secret"
    for mode in (0o640, 0o604, 0o610):
        path.chmod(mode)
        with pytest.raises(PrivateError, match="key: others may read it; chmod 600 it"):
            private.read(path)
    with pytest.raises(FileExistsError):
        private.write(path, b"another")
    with pytest.raises(FileNotFoundError):
        private.read(tmp_path / "none")


def test_a_file_is_replaced_as_a_whole_and_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "key"
    private.write(path, b"old")
    (tmp_path / ".key.new").write_bytes(b"of a replacement that was broken off")
    private.replace(path, b"new")
    assert private.read(path) == b"new"
    assert [each.name for each in tmp_path.iterdir()] == ["key"]
    private.move(path, tmp_path / "moved")
    assert private.read(tmp_path / "moved") == b"new"


def test_what_is_too_long_is_no_key(tmp_path: Path) -> None:
    path = tmp_path / "key"
    private.write(path, b"x" * (private.BYTES_MAX + 1))
    with pytest.raises(PrivateError, match="more than 65536 bytes are no key"):
        private.read(path)
    with pytest.raises(PrivateError, match="more than 65536 bytes are no key"):
        private.printed(python("while True: print('x' * 4096)"))


def test_a_command_prints_it_and_no_shell_is_between(tmp_path: Path) -> None:
    source = Source(path=tmp_path / "none", command=("printf", "%s", "$HOME;`id`"))
    assert source.read() == b"$HOME;`id`"
    assert source.name == "what printf prints"


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (f"print('{CANARY}'); raise SystemExit(3)", "ended with status 3 and printed 12 bytes"),
        ("pass", "ended with status 0 and printed 0 bytes"),
    ],
)
def test_a_command_that_fails_is_told_of_and_never_what_it_printed(script: str, words: str) -> None:
    with pytest.raises(PrivateError, match=words) as caught:
        private.printed(python(script))
    assert CANARY not in str(caught.value)


def test_a_command_that_is_not_there_is_named() -> None:
    with pytest.raises(PrivateError, match="/nowhere/vault: No such file or directory"):
        private.printed(["/nowhere/vault"])


def test_a_command_that_hangs_is_ended_with_all_that_it_has_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private, "PRINTS_WITHIN_S", 0.2)
    child = "import subprocess; subprocess.run(['sleep', '600'])"
    with pytest.raises(PrivateError, match="did not end within"):
        private.printed(python(child))


def test_a_process_that_keeps_secrets_is_dumped_nowhere() -> None:
    script = """
import ctypes, resource
from runtime.private import keep_out_of_dumps
keep_out_of_dumps()
print(resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))
"""
    assert subprocess.check_output(python(script), text=True) == "(0, 0) 0\n"
