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
# What may be billed beyond what ran.
BEYOND_MS_MAX = 50
_ENGINE_AWAY = (requests.RequestException, docker.errors.APIError, OSError, ValueError, AttributeError)


class Witness:
    """Notes how long each attempt ran, as soon as that is known and before it is cleared away."""

    def __init__(self, runs: Sequence[Path], docker_host: str) -> None:
        self.by_supervisor: dict[str, int] = {}
        self.by_engine: dict[str, int] = {}
        self._runs = runs
        self._over = threading.Event()
        self._client = docker.DockerClient(base_url=docker_host)
        self._events = self._listen()
        self._threads = [threading.Thread(target=work) for work in (self._watch_runs, self._watch_engine)]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        self._over.set()
        self._events.close()
        for thread in self._threads:
            thread.join()
        self._client.close()

    @property
    def is_awake(self) -> bool:
        """Was nothing missed by a mistake of ours?"""
        return all(thread.is_alive() for thread in self._threads)

    def _watch_runs(self) -> None:
        while not self._over.wait(_LOOK_EVERY_S):
            for folder in self._runs:
                for path in folder.glob("*/exit.json"):
                    with suppress(OSError, ValueError):
                        told = json.loads(path.read_bytes())
                        # What never started has none.
                        if "run_ms" in told:
                            self.by_supervisor[_attempt_of(path.parent.name)] = int(told["run_ms"])

    def _watch_engine(self) -> None:
        while not self._over.is_set():
            # It may be restarted: then it knows how those ended that it finds.
            with suppress(*_ENGINE_AWAY):
                for event in self._events:
                    self._note(event["Actor"]["ID"])
            if not self._over.wait(_LOOK_EVERY_S):
                with suppress(*_ENGINE_AWAY):
                    self._events = self._listen()
                    for container in self._client.api.containers(all=True, filters={"label": LABEL_ATTEMPT}):
                        self._note(container["Id"])

    def _listen(self) -> Any:
        return self._client.events(decode=True, filters={"event": "die", "label": LABEL_ATTEMPT})

    def _note(self, container_id: str) -> None:
        # Gone already: the supervisor's word must do.
        with suppress(docker.errors.APIError):
            told = self._client.api.inspect_container(container_id)
            state = told["State"]
            if state["Status"] in ("exited", "dead"):
                between = _moment(state["FinishedAt"]) - _moment(state["StartedAt"])
                attempt_id = told["Config"]["Labels"][LABEL_ATTEMPT]
                self.by_engine[attempt_id] = round(between.total_seconds() * 1_000)


def _attempt_of(folder_name: str) -> str:
    return folder_name.rsplit(".", 1)[0]


def _moment(text: str) -> datetime:
    whole, _, part = text.rstrip("Z").partition(".")
    return datetime.fromisoformat(f"{whole}.{(part or '0')[:6]:0<6}+00:00")
