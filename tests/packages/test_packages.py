"""From a Debian root and our packages to a billed job, by the commands of docs/install.md, and back again."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rig.parts import wait_until
from tests.support.debian_root import DebianRoot, debian_root, fresh_base
from tests.support.need import need
from tests.support.town import ROOT, blocks

pytestmark = pytest.mark.slow
OLD = "0.0.9"
NAMES = ("usance-agent", "usance-coordinator", "usance")
SETTINGS = """\
sed -i '/^executor = /s/docker/process/; s/^allow_process_executor = .*/allow_process_executor = true/' FILE
sed -i 's/^trusted_accounts = .*/trusted_accounts = ["alice"]/; s/^count = 0/count = 1/' FILE
sed -i 's/^model = .*/model = "SIMULATED NVIDIA GeForce RTX 4090"/' FILE
""".replace("FILE", "/etc/usance/agent.toml")
# For want of GPUs and of an engine, and nothing else.
INSTEAD = {
    "apt install ./": "dpkg --install /mnt/old/",
    " ./usance_": " /mnt/old/usance_",
    'usance-agent price "*"': f'{SETTINGS}usance-agent price "*"',
    "--gpu rtx4090": "--gpu rtx4090 --simulated",
    "--image python:3.12": "--isolation process",
    "-- python3 -c 'print(6 * 7)'": "-- sh -c 'echo $((6 * 7))'",
}
ASKED = "--gpu rtx4090 --simulated --isolation process --budget 1"
# It waits for our word, and says then that it was there all the time.
PATIENT = "echo $$ > /tmp/job.pid; until [ -e /tmp/go ]; do sleep 0.1; done; echo here all the time"
# What dpkg and the tools of accounts keep for themselves.
THEIRS = re.compile(
    r"/(var/lib/dpkg|var/log|var/cache|root|tmp|run|dev|mnt|proc)(/|$)|/etc/\.pwd\.lock|/etc/[a-z]+-$"
)


def version_of(deb: Path) -> str:
    return subprocess.run(
        ["dpkg-deb", "-f", deb, "Version"], check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages that people get, but not compressed; and, in `old`, as if of a release before."""
    need(os.geteuid() == 0, "root's rights", "run it as root: packages are installed, in a root of their own")
    need(shutil.which("dpkg-deb") is not None, "Debian's dpkg", "run it on Debian")
    need(Path("/usr/bin/python3").exists(), "the system's Python", "apt-get install python3")
    # Else a root's mounts can't be kept from everybody else's.
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    how = "before the chroot into a folder, mount --rbind that folder on itself"
    need("/" in mounts, "a root that is a mount, as a chroot's often is not", how)
    out = tmp_path_factory.mktemp("packages")
    if given := os.environ.get("USANCE_PACKAGES"):
        for deb in Path(given).glob("*.deb"):
            shutil.copy(deb, out)
    else:
        build(out)
    (out / "old").mkdir()
    for name in NAMES:
        (deb,) = out.glob(f"{name}_*.deb")
        make_older(deb, out / "old" / f"{name}_{OLD}.deb")
    return out


def build(out: Path) -> None:
    tools = {"TOOLS": str(Path(sys.executable).parents[1]), "COMPRESS": "-Znone"}
    argv = [ROOT / "packaging/debian/build.sh", out]
    done = subprocess.run(argv, env={**os.environ, **tools}, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def make_older(deb: Path, old: Path) -> None:
    """The same with a lower version, and with another word in the agent's settings file."""
    tree = old.with_suffix("")
    subprocess.run(["dpkg-deb", "--raw-extract", deb, tree], check=True)
    (metadata,) = tree.glob("usr/lib/*/lib/python3*/site-packages/usance-*.dist-info/METADATA")
    for path in (tree / "DEBIAN/control", metadata):
        path.write_text(
            re.sub(r"^Version: .*$", f"Version: {OLD}", path.read_text(), count=1, flags=re.MULTILINE)
        )
    conffile = tree / "etc/usance/agent.toml"
    if conffile.exists():
        conffile.write_text("# As an older version said it.\n" + conffile.read_text())
    subprocess.run(
        ["dpkg-deb", "-Znone", "--root-owner-group", "--build", tree, old], check=True, capture_output=True
    )
    shutil.rmtree(tree)


@pytest.fixture
def base(built: Path, tmp_path: Path) -> Path:
    """This machine's root; or, when asked for (`make packages-try`), a fresh one."""
    if not os.environ.get("USANCE_FRESH_ROOT"):
        return Path("/")
    need(shutil.which("debootstrap") is not None, "debootstrap", "apt-get install debootstrap")
    depends = subprocess.run(
        ["dpkg-deb", "-f", *built.glob("usance-coordinator_*.deb"), "Depends"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    # Of alternatives the first; apt takes none without a version's brackets.
    wanted = {re.sub(r"\s*[(|].*", "", part.strip()) for part in depends.split(",")}
    fresh_base(tmp_path / "fresh", sorted(wanted))
    return tmp_path / "fresh"


@pytest.fixture
def root(built: Path, base: Path) -> Iterator[DebianRoot]:
    with debian_root(built, base) as made:
        made.sh("echo 127.0.0.1 localhost market.example.org $(hostname) > /etc/hosts")
        # Nobody else's word on what may start; and no index of all manuals, made anew for each package.
        made.sh("rm -f /usr/sbin/policy-rc.d /var/lib/man-db/auto-update")
        yield made


def test_from_packages_to_a_bill_and_back_to_nothing(root: DebianRoot, base: Path, built: Path):
    before = root.changed()
    follow_the_page(root)
    upgrade_with_a_job_running(root, version_of(next(built.glob("usance_*.deb"))))
    remove_and_purge(root)
    left = {path for path in root.changed() - before if not os.path.lexists(f"{base}{path}")}
    assert {path for path in left if not THEIRS.match(path)} == set()


def follow_the_page(root: DebianRoot) -> None:
    said = []
    for block in blocks(ROOT / "docs/install.md"):
        typed = block
        for shown, meant in INSTEAD.items():
            typed = typed.replace(shown, meant)
        said.append(root.sh(typed))
    operator, made, enrolled, bought = said[0], said[2], said[6], said[-1]
    assert "usance-coordinator init makes a market" in operator
    assert re.findall(r"^  (\S+ \S+)", made, re.MULTILINE) == [
        "systemctl enable",
        "usance login",
        "usance admin",
    ], "the three next commands"
    assert "market address" in made
    assert "\nbad " not in made
    assert "enrolled as host host_" in enrolled
    assert "engine" in enrolled
    assert "\n42\n" in f"\n{bought}"
    assert "verified: " in bought
    root.sh("usance-agent --version | grep -F 0.0.9; usance --version | grep -F 0.0.9")
    # What the service made is the service's, also after root has looked at it.
    assert root.sh(
        "usance-coordinator audit; stat -c %U /var/lib/usance-coordinator/* | sort -u"
    ).splitlines()[1:] == ["usance-coordinator"]
    assert root.sh("stat -c '%a %U:%G' /etc/usance/coordinator.toml") == "640 root:usance-coordinator\n"


def upgrade_with_a_job_running(root: DebianRoot, version: str) -> None:
    root.sh(f"usance run -y --detach {ASKED} --name patient -- sh -c '{PATIENT}'")
    wait_until(lambda: "RUNNING" in root.sh("usance show patient --json"), "the job runs", deadline_s=60)
    job, agent, coordinator = (root.sh(f"cat {path}") for path in pid_files())
    root.sh("dpkg --force-confold --install /mnt/*.deb")
    assert root.sh("usance-agent --version; usance-coordinator --version").count(version) == 2
    now = [root.sh(f"cat {path}") for path in pid_files()]
    assert now[0] == job
    root.sh(f"kill -0 {job}")
    assert now[1] != agent, "the agent was exchanged"
    assert now[2] != coordinator, "the coordinator was exchanged"
    root.sh("touch /tmp/go; usance wait patient")
    assert root.sh("usance logs patient") == "here all the time\n"
    assert "verified: " in root.sh("usance bill patient --verify")
    assert "0 violations" in root.sh("usance-coordinator audit")
    # What was changed stays: asked about where the package's words changed, and else not.
    root.sh(
        "grep -F 'executor = \"process\"' /etc/usance/agent.toml; test -e /etc/usance/agent.toml.dpkg-dist"
    )
    root.sh("grep -F market.example.org /etc/usance/coordinator.toml")
    root.sh("ls /etc/usance/coordinator.toml.dpkg-*", fails=True)


def pid_files() -> tuple[str, str, str]:
    services = (f"/run/stand-in/usance-{name}.service.pid" for name in ("agent", "coordinator"))
    return ("/tmp/job.pid", *services)  # type: ignore[return-value]


def remove_and_purge(root: DebianRoot) -> None:
    root.sh("rm /tmp/go")
    root.sh(f"usance run -y --detach {ASKED} --name unwilling -- sh -c '{PATIENT}'")
    wait_until(lambda: "RUNNING" in root.sh("usance show unwilling --json"), "the job runs", deadline_s=60)
    assert "1 jobs run here" in root.sh("dpkg --remove usance-agent", fails=True)
    root.sh("systemctl is-active usance-agent; kill -0 $(cat /tmp/job.pid)")
    root.sh("touch /tmp/go; usance wait unwilling")
    root.sh("dpkg --remove usance-agent")
    root.sh("test -e /var/lib/usance/identity.json; test -e /etc/usance/agent.toml")
    root.sh("ls -d /usr/lib/usance-agent", fails=True)
    root.sh("cd /var/backups/usance-coordinator; tar --list --file market.tar; rm *")
    root.sh("dpkg --purge usance-agent usance-coordinator usance")
    for gone in ("getent passwd usance-coordinator", "ls -d /etc/usance", "pgrep -f '[u]sance'"):
        root.sh(gone, fails=True)
