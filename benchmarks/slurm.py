"""A Slurm of our own: one node, one controller, under a folder of its own; nothing of it is left."""

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.rig.parts import find_program, free_port, spawn, stop, wait_until

_HOW = "apt-get install slurmctld slurmd slurm-client munge"
CPUS = 32
_CONF = """\
ClusterName=benchmark
SlurmctldHost={node}(127.0.0.1)
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={controller}
SlurmdPort={daemon}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
MaxJobCount=10000
ReturnToService=2
NodeName={node} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=all Nodes={node} Default=YES MaxTime=INFINITE State=UP
"""


class Slurm:
    def __init__(self, folder: Path) -> None:
        self._environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
        self._folder = folder
        # Its daemons.
        self.pids: list[int] = []

    def run(self, program: str, *arguments: str) -> str:
        found = find_program(program, how=_HOW)
        done = subprocess.run(
            [str(found), *arguments],
            env=self._environment,
            cwd=self._folder,
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        return done.stdout

    def ready(self) -> bool:
        try:
            return "idle" in self.run("sinfo", "--noheader", "--format=%T")
        except subprocess.CalledProcessError:
            return False


@contextmanager
def running_slurm(folder: Path) -> Iterator[Slurm]:
    """Raises parts.MissingError where its programs are not installed."""
    munged, controller, daemon = (find_program(p, how=_HOW) for p in ("munged", "slurmctld", "slurmd"))
    folder.mkdir(mode=0o755)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    node = socket.gethostname().split(".")[0]
    conf = _CONF.format(
        folder=folder, node=node, cpus=CPUS, user="root", controller=free_port(), daemon=free_port()
    )
    (folder / "slurm.conf").write_text(conf)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    munge = [str(munged), "--foreground", "--force", f"--socket={folder}/munge.socket", f"--key-file={key}"]
    munge += [f"--{name}-file={folder}/munge.{name}" for name in ("pid", "log", "seed")]
    slurm = Slurm(folder)
    environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
    with ExitStack() as stack:
        for argv in (munge, [str(controller), "-D", "-c"], [str(daemon), "-D", "-N", node]):
            name = Path(argv[0]).name
            process = spawn(argv, log=folder / f"{name}.out", env=environment)
            stack.callback(stop, process)
            slurm.pids.append(process.pid)
            if name == "munged":
                wait_until((folder / "munge.socket").exists, "munged answers")
        wait_until(slurm.ready, "Slurm's node is idle", deadline_s=30)
        yield slurm
