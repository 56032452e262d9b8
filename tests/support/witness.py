"""What truly ran, read from whoever ran it: the container engine, and the supervisor beside each run."""

import json
import threading
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import docker
import requests

from agent.domain.plan import LABEL_ATTEMPT

_LOOK_EVERY_S = 0.01


class Witness:
    """Notes how long each attempt ran, as soon as that is known and before it is cleared away."""

    def __init__(self, runs: Sequence[Path], docker_host: str) -> None:
        self.by_supervisor: dict[str, int] = {}
        self.by_engine: dict[str, int] = {}
        self._runs = runs
        self._over = threading.Event()
        self._client = docker.DockerClient(base_url=docker_host)
        self._events = self._client.events(decode=True, filters={"event": "die", "label": LABEL_ATTEMPT})
        self._threads = [threading.Thread(target=work) for work in (self._watch_runs, self._watch_engine)]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        self._over.set()
        self._events.close()
        for thread in self._threads:
            thread.join()
        self._client.close()

    def _watch_runs(self) -> None:
        while not self._over.wait(_LOOK_EVERY_S):
            for folder in self._runs:
                for path in folder.glob("*/exit.json"):
                    with suppress(OSError, ValueError):
                        told = json.loads(path.read_bytes())
                        self.by_supervisor[_attempt_of(path.parent.name)] = int(told["run_ms"])

    def _watch_engine(self) -> None:
        with suppress(requests.RequestException, OSError, ValueError, AttributeError):
            for event in self._events:
                attributes: dict[str, Any] = event["Actor"]["Attributes"]
                # Gone already: the supervisor's word must do.
                with suppress(docker.errors.APIError):
                    state = self._client.api.inspect_container(event["Actor"]["ID"])["State"]
                    between = _moment(state["FinishedAt"]) - _moment(state["StartedAt"])
                    self.by_engine[attributes[LABEL_ATTEMPT]] = round(between.total_seconds() * 1_000)


def _attempt_of(folder_name: str) -> str:
    return folder_name.rsplit(".", 1)[0]


def _moment(text: str) -> datetime:
    whole, _, part = text.rstrip("Z").partition(".")
    return datetime.fromisoformat(f"{whole}.{(part or '0')[:6]:0<6}+00:00")
