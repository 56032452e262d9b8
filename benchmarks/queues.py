"""Task queues as peers: Celery on Redis, procrastinate on PostgreSQL, each in an environment of its own.

A peer is set up once and then asked for one round after the other, so that rounds of several can take turns.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import family_cpu_s
from tests.rig.parts import MissingError, find_program, free_port, spawn, stop, wait_until
from tests.rig.postgres import running_postgres

WORKERS = 4
# At once, so that no peer waits for its asker's round trips.
ASKERS = 8
_REDIS_HOW = "apt-get install redis-server"
_INSTALL_S, _RUN_S = 240, 300


@dataclass(frozen=True, kw_only=True)
class Round:
    """Of many tasks: how many a second, and the processor time of all that took part for each of them."""

    rate: float
    cpu_us: float


# So many tasks, all of them taken in and done.
Peer = Callable[[int], Round]

# Each prints how many tasks a second were taken in and done.
_CELERY = """\
import sys, threading, time
import redis
from celery import Celery
app = Celery("peer", broker=sys.argv[1], backend=None)
app.conf.task_acks_late = sys.argv[3] == "late"
@app.task(name="nothing")
def nothing(is_last):
    if is_last:
        redis.Redis.from_url(sys.argv[1]).set("done", time.time())
if sys.argv[2] == "work":
    app.worker_main(["worker", "--concurrency", sys.argv[4], "--without-gossip", "--without-mingle",
                     "--loglevel", "ERROR"])
else:
    store, count, askers = redis.Redis.from_url(sys.argv[1]), int(sys.argv[4]), int(sys.argv[5])
    nothing.delay(False)
    while store.llen("celery"):
        time.sleep(0.05)
    store.delete("done")
    def ask(first):
        for number in range(first, count - 1, askers):
            nothing.delay(False)
    began = time.time()
    asking = [threading.Thread(target=ask, args=(first,)) for first in range(askers)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    nothing.delay(True)
    while (done := store.get("done")) is None:
        time.sleep(0.01)
    print(count / (float(done) - began))
"""

_PROCRASTINATE = """\
import asyncio, sys, time
import procrastinate
app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=sys.argv[1], max_size=10))
count, workers, askers = map(int, sys.argv[2:])
done, finished = 0, None
@app.task(name="nothing")
async def nothing():
    global done
    done += 1
    if done == count:
        finished.set()
async def main():
    global finished
    finished = asyncio.Event()
    async with app.open_async():
        if not await app.check_connection_async():
            await app.schema_manager.apply_schema_async()
        worker = asyncio.create_task(app.run_worker_async(concurrency=workers, install_signal_handlers=False))
        await asyncio.sleep(1)
        began = time.time()
        async def submit(share):
            for _ in range(share):
                await nothing.defer_async()
        await asyncio.gather(*(submit(count // askers) for _ in range(askers)))
        await finished.wait()
        print(count / (time.time() - began))
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)
asyncio.run(main())
"""


@contextmanager
def running_celery(folder: Path, *, durable: bool) -> Iterator[Peer]:
    """Celery on Redis. Raises MissingError where it can't be had.

    Durable: Redis syncs its log before it answers, and a task is acknowledged when it is done, so that no
    crash of Redis or of a worker loses it. Otherwise both are as they come: every task may be lost.
    """
    redis = find_program("redis-server", how=_REDIS_HOW)
    python = _environment(folder / "celery", ["celery[redis]"])
    script, log = folder / "peer.py", folder / f"redis-{durable}.log"
    script.write_text(_CELERY)
    port, data = free_port(), folder / f"redis-{durable}"
    data.mkdir()
    url, acks = f"redis://127.0.0.1:{port}/0", "late" if durable else "early"
    with ExitStack() as stack:
        argv = [str(redis), "--port", str(port), "--dir", str(data), "--bind", "127.0.0.1"]
        server = spawn([*argv, *(["--appendonly", "yes", "--appendfsync", "always"] * durable)], log=log)
        stack.callback(stop, server)
        wait_until(lambda: "Ready to accept" in log.read_text(), "Redis answers")
        environment = {**os.environ, "C_FORCE_ROOT": "1"}
        worker = spawn(
            [python, str(script), url, "work", acks, str(WORKERS)],
            log=folder / f"worker-{durable}.log",
            env=environment,
        )
        stack.callback(stop, worker)

        def ask(count: int) -> Round:
            asker = [python, str(script), url, "ask", acks, str(count), str(ASKERS)]
            return _round(asker, count, [server.pid, worker.pid])

        # The worker's processes are there, and warm.
        ask(ASKERS * WORKERS)
        yield ask


@contextmanager
def running_procrastinate(folder: Path) -> Iterator[Peer]:
    """procrastinate on a PostgreSQL whose commits reach the disk."""
    python = _environment(folder / "procrastinate", ["procrastinate", "psycopg[binary]"])
    script = folder / "peer_pg.py"
    script.write_text(_PROCRASTINATE)
    with running_postgres(durable=True) as server, server.database() as url:
        conninfo = url.replace("postgresql+psycopg://", "postgresql://")

        def ask(count: int) -> Round:
            whole = count // ASKERS * ASKERS
            asker = [python, str(script), conninfo, str(whole), str(WORKERS * 4), str(ASKERS)]
            return _round(asker, whole, [server.pid])

        ask(ASKERS * WORKERS)
        yield ask


def _round(argv: list[str], count: int, others: Sequence[int]) -> Round:
    before, own = sum(map(family_cpu_s, others)), os.times()
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=_RUN_S)
    if done.returncode != 0:
        raise RuntimeError(f"the peer failed:\n{done.stderr[-2_000:]}")
    now = os.times()
    asker_s = now.children_user + now.children_system - own.children_user - own.children_system
    cpu_s = asker_s + sum(map(family_cpu_s, others)) - before
    return Round(rate=float(done.stdout), cpu_us=cpu_s * 1e6 / count)


def _environment(folder: Path, packages: Sequence[str]) -> str:
    """The Python of a throw-away environment with these packages, made once."""
    python = str(folder / "bin" / "python")
    if folder.exists():
        return python
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, timeout=_INSTALL_S)
    argv = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=_INSTALL_S)
    if done.returncode != 0:
        raise MissingError(f"the package {packages[0]}", "a package index that pip reaches")
    return python
