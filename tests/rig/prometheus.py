"""A Prometheus of our own, and promtool: Debian's programs, on the loopback interface."""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import urlopen

from tests.rig.parts import Folder, find_program, free_port, spawn, stop, sweep, wait_until

_KIND = "prometheus"
_HOW = "apt-get install prometheus"


class Prometheus:
    """A running one; it scrapes and rules as `config` says."""

    def __init__(self, config: str) -> None:
        program = find_program("prometheus", how=_HOW)
        sweep(_KIND, shutil.rmtree)
        self._folder = Folder(_KIND)
        self.address = f"127.0.0.1:{free_port()}"
        file = self._folder.path / "prometheus.yml"
        file.write_text(config)
        self._log = self._folder.path / "log"
        self._process = spawn(
            [
                str(program),
                f"--config.file={file}",
                f"--storage.tsdb.path={self._folder.path / 'data'}",
                f"--web.listen-address={self.address}",
                "--log.level=warn",
            ],
            log=self._log,
        )
        try:
            wait_until(self._answers, "Prometheus answers")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        stop(self._process)
        self._folder.remove()

    def ask(self, path: str, **parameters: Any) -> Any:
        """The `data` of its answer; raises ValueError with its word on what was wrong."""
        url = f"http://{self.address}/api/v1/{path}?{urlencode(parameters)}"
        try:
            with urlopen(url, timeout=20) as answer:
                return json.load(answer)["data"]
        except HTTPError as error:
            raise ValueError(json.load(error)["error"]) from None

    def value(self, query: str) -> float | None:
        """Of the first series that it finds; None: there is none."""
        found = self.ask("query", query=query)["result"]
        return float(found[0]["value"][1]) if found else None

    def firing(self) -> set[str]:
        alerts = self.ask("alerts")["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}

    def until(self, look: Callable[[], bool], what: str) -> None:
        wait_until(look, what, deadline_s=30)

    def _answers(self) -> bool:
        if self._process.poll() is not None:
            raise RuntimeError(f"Prometheus ended at once:\n{self._log.read_text()}")
        try:
            with urlopen(f"http://{self.address}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except (URLError, ConnectionError):
            return False


@contextmanager
def running_prometheus(config: str) -> Iterator[Prometheus]:
    """For the length of a block; raises parts.MissingError where it is not installed."""
    prometheus = Prometheus(config)
    try:
        yield prometheus
    finally:
        prometheus.stop()


def promtool(*arguments: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
    """Its word on something; `given` is what it reads."""
    program = find_program("promtool", how=_HOW)
    return subprocess.run(
        [str(program), *arguments], input=given, capture_output=True, text=True, check=False, timeout=60
    )
