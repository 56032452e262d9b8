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
    """A program's machine: the package that runs there, and what must not be there."""

    name: str
    package: str
    absent: tuple[str, ...]


EXTRAS = (
    Extra(
        name="agent",
        package="agent",
        absent=("sqlalchemy", "alembic", "psycopg", "click"),
    ),
    Extra(
        name="coordinator",
        package="coordinator",
        absent=("docker", "pynvml", "psutil", "click"),
    ),
    Extra(
        name="cli",
        package="cli",
        absent=("docker", "pynvml", "psutil", "sqlalchemy", "alembic", "psycopg"),
    ),
)

# Runs what the extra is for where only what its pinned list names can be imported, also what is imported only
# when it is needed. (In environments that hold nothing else it runs in tests/packages.)
ALONE = """
import importlib, pkgutil, re, sys
from importlib.metadata import packages_distributions
from pathlib import Path

pinned, package, *absent = sys.argv[1:]
plain = lambda name: re.sub("[-_.]+", "-", name).lower()
listed = {plain(name) for name in re.findall(r"^([\\w.-]+)==", Path(pinned).read_text(), re.MULTILINE)}
listed.add("usance")
hidden = {
    top for top, found in packages_distributions().items() if listed.isdisjoint(plain(name) for name in found)
}

class Hides:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in hidden:
            raise ModuleNotFoundError(f"no module named {name!r}", name=name)

sys.meta_path.insert(0, Hides())
whole = importlib.import_module(package)
for module in pkgutil.walk_packages(whole.__path__, package + "."):
    if ".migrations" not in module.name:  # scripts, which only the migration tool can run
        importlib.import_module(module.name)
for name in absent:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        continue
    raise SystemExit(f"{name} is there")
print("needs no more than", len(listed), "distributions")
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
def test_each_extra_needs_no_more_than_it_names(extra: Extra):
    pinned = REPOSITORY / f"requirements/{extra.name}.txt"
    said = run(sys.executable, "-c", ALONE, pinned, extra.package, *extra.absent)
    assert said.startswith("needs no more than")


def test_folders_that_would_shadow_other_peoples_packages_are_none():
    for folder in ("proto", "packaging"):
        assert not (REPOSITORY / folder / "__init__.py").exists()
        assert not list((REPOSITORY / folder).glob("*.py"))
