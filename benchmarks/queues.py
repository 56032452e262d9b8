"""Task queues as peers: Celery on Redis, procrastinate on PostgreSQL, each in an environment of its own."""

import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.rig.parts import MissingError, find_program, free_port, spawn, stop, wait_until
from tests.rig.postgres import running_postgres

WORKERS = 4
_REDIS_HOW = "apt-get install redis-server"
_INSTALL_S, _RUN_S = 240, 300

# Each prints how many tasks a second were taken in and done.
_CELERY = """\
import sys, time
from celery import Celery
app = Celery("peer", broker=sys.argv[1], backend=None)
@app.task(name="nothing")
def nothing(number):
    import redis
    if number == last:
        redis.Redis.from_url(sys.argv[1]).set("done", time.time())
last = int(sys.argv[2]) - 1
if sys.argv[3] == "work":
    app.worker_main(["worker", "--concurrency", sys.argv[4], "--without-gossip", "--without-mingle",
                     "--loglevel", "ERROR"])
else:
    import redis
    store = redis.Redis.from_url(sys.argv[1])
    nothing.delay(-1)
    while store.llen("celery"):
        time.sleep(0.05)
    began = time.time()
    for number in range(last + 1):
        nothing.delay(number)
    while (done := store.get("done")) is None:
        time.sleep(0.01)
    print((last + 1) / (float(done) - began))
"""

_PROCRASTINATE = """\
import asyncio, sys, time
import procrastinate
app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=sys.argv[1], max_size=10))
count, workers = int(sys.argv[2]), int(sys.argv[3])
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
        await app.schema_manager.apply_schema_async()
        worker = asyncio.create_task(app.run_worker_async(concurrency=workers, install_signal_handlers=False))
        await asyncio.sleep(1)
        began = time.time()
        async def submit(share):
            for _ in range(share):
                await nothing.defer_async()
        await asyncio.gather(*(submit(count // 8) for _ in range(8)))
        await finished.wait()
        print(count / (time.time() - began))
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)
asyncio.run(main())
"""


def celery_rate(folder: Path, tasks: int) -> float:
    """Tasks a second through Celery on Redis as Debian sets it up. MissingError where it can't be had."""
    redis = find_program("redis-server", how=_REDIS_HOW)
    python = _environment(folder / "celery", ["celery[redis]"])
    (folder / "peer.py").write_text(_CELERY)
    port = free_port()
    url = f"redis://127.0.0.1:{port}/0"
    with ExitStack() as stack:
        log = folder / "redis.log"
        server = spawn(
            [str(redis), "--port", str(port), "--dir", str(folder), "--bind", "127.0.0.1"], log=log
        )
        stack.callback(stop, server)
        wait_until(lambda: "Ready to accept" in log.read_text(), "Redis answers")
        argv = [python, str(folder / "peer.py"), url, str(tasks)]
        environment = {**os.environ, "C_FORCE_ROOT": "1"}
        worker = spawn([*argv, "work", str(WORKERS)], log=folder / "worker.log", env=environment)
        stack.callback(stop, worker)
        return _rate([*argv, "ask"])


def procrastinate_rate(folder: Path, tasks: int) -> float:
    """Jobs a second through procrastinate on a PostgreSQL whose commits reach the disk."""
    python = _environment(folder / "procrastinate", ["procrastinate", "psycopg[binary]"])
    (folder / "peer_pg.py").write_text(_PROCRASTINATE)
    with running_postgres(durable=True) as server, server.database() as url:
        conninfo = url.replace("postgresql+psycopg://", "postgresql://")
        return _rate([python, str(folder / "peer_pg.py"), conninfo, str(tasks // 8 * 8), str(WORKERS * 4)])


def _rate(argv: list[str]) -> float:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=_RUN_S)
    if done.returncode != 0:
        raise RuntimeError(f"the peer failed:\n{done.stderr[-2_000:]}")
    return float(done.stdout)


def _environment(folder: Path, packages: Sequence[str]) -> str:
    """The Python of a throw-away environment with these packages."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, timeout=_INSTALL_S)
    python = str(folder / "bin" / "python")
    argv = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=_INSTALL_S)
    if done.returncode != 0:
        raise MissingError(f"the package {packages[0]}", "a package index that pip reaches")
    return python
