"""What is shipped: the wheel's exact top-level names, and what each extra brings to a machine, by itself."""

import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True, kw_only=True)
class Extra:
    """A program's machine: the console command that it is for, and what must not be there."""

    name: str
    command: str
    package: str
    absent: tuple[str, ...]


EXTRAS = (
    Extra(
        name="agent",
        command="usance-agent",
        package="agent",
        absent=("sqlalchemy", "alembic", "psycopg", "click"),
    ),
    Extra(
        name="coordinator",
        command="usance-coordinator",
        package="coordinator",
        absent=("docker", "pynvml", "psutil", "click"),
    ),
    Extra(
        name="cli",
        command="usance",
        package="cli",
        absent=("docker", "pynvml", "psutil", "sqlalchemy", "alembic", "psycopg"),
    ),
)

# Also what is imported only when it is needed must find its libraries.
IMPORT_ALL = """
import importlib, pkgutil, sys
package = importlib.import_module(sys.argv[1])
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    if ".migrations" not in module.name:  # scripts, which only the migration tool can run
        importlib.import_module(module.name)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, REPOSITORY)
    (built,) = folder.iterdir()
    return built


def run(*command: object) -> str:
    done = subprocess.run([*map(str, command)], check=False, capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.slow
def test_the_wheels_exact_top_level_names(wheel):
    version = wheel.name.split("-")[1]
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {
        "agent",
        "cli",
        "coordinator",
        "ledger",
        "runtime",
        "usance",
        f"usance-{version}.dist-info",
    }
    assert f"usance-{version}.dist-info/licenses/LICENSE" in names
    assert "usance/v1/market_pb2.py" in names
    assert not [name for name in names if "test" in name]


@pytest.mark.slow
@pytest.mark.parametrize("extra", EXTRAS, ids=lambda extra: extra.name)
def test_each_extra_by_itself_in_a_new_environment(extra: Extra, wheel, tmp_path):
    python = tmp_path / "venv/bin/python"
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "--python",
        python,
        "install",
        "--quiet",
        "--no-compile",  # what is not imported need not be
    ]
    run(*pip, "--require-hashes", "--requirement", REPOSITORY / f"requirements/{extra.name}.txt")
    run(*pip, "--no-deps", wheel)
    run(*pip, "--no-index", f"{wheel}[{extra.name}]")  # the pinned list lacks nothing that the extra names

    command = python.parent / extra.command
    assert extra.command in run(command, "--help")
    assert wheel.name.split("-")[1] in run(command, "--version")
    run(python, "-c", IMPORT_ALL, extra.package)
    script = "import importlib.util as u, sys; print([n for n in sys.argv[1:] if u.find_spec(n)])"
    assert run(python, "-c", script, *extra.absent) == "[]\n"


def test_folders_that_would_shadow_other_peoples_packages_are_none():
    for folder in ("proto", "packaging"):
        assert not (REPOSITORY / folder / "__init__.py").exists()
        assert not list((REPOSITORY / folder).glob("*.py"))
