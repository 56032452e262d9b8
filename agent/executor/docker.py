"""Runs jobs in hardened containers. The only module that speaks to the engine through its client.

Each container has a supervisor of its own, which starts it, takes its output and stops it at its paid-through
time. Here it is fetched, made, compared with its plan, found again and removed.
"""

import asyncio
import contextlib
import http
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import docker
import docker.errors
import requests

from agent.domain.attempt import AttemptKey, EndReason, Isolation, JobOrder, Network, OutputChunk, Run
from agent.domain.confidential import Confidential, Login
from agent.domain.devices import device_faults
from agent.domain.gpu import is_simulated
from agent.domain.network import NetworkPlan
from agent.domain.plan import (
    LABEL_ATTEMPT,
    LABEL_EPOCH,
    LABEL_HOST,
    HostPolicy,
    labels_of,
    plan,
)
from agent.executor import devices, trial
from agent.executor.creation import create_arguments
from agent.executor.firewall import Firewall
from agent.executor.images import Image, Images
from agent.executor.inspection import differences
from agent.executor.networks import JobNetworks
from agent.executor.ports import ExecutorError, Progress, RunEnd, StartError
from agent.executor.runs import SupervisedRuns
from agent.executor.secret_files import MEMORY, SecretFiles
from runtime.clock import Clock

_ANSWER_S = 60
_AGAIN_MS = 1_000
_LOOKS_A_PROOF = 12
_ENGINE_ERRORS = (docker.errors.DockerException, requests.exceptions.RequestException)

log = logging.getLogger(__name__)

_T = TypeVar("_T")


class DockerExecutor:
    """An Executor over a Docker Engine."""

    isolation = Isolation.CONTAINER

    def __init__(
        self,
        *,
        folder: Path,
        docker_host: str,
        policy: HostPolicy,
        clock: Clock,
        firewall: Firewall | None = None,
        gpu_minors: Mapping[str, int] | None = None,
        memory: Path = MEMORY,
    ) -> None:
        self._runs = SupervisedRuns(folder, clock, policy.output_bytes_max)
        self._docker_host = docker_host
        self._policy = policy
        self._clock = clock
        self._socket_path = docker_host.removeprefix("unix://")
        try:
            self._client = docker.DockerClient(base_url=docker_host, timeout=_ANSWER_S)
        except _ENGINE_ERRORS as error:
            raise ExecutorError(f"no container engine answers at {docker_host}: {error}") from error
        self._images = Images(
            _Store(self._client), self._socket_path, policy.images, folder.parent / "images.json", clock
        )
        self._networks = JobNetworks(
            self._client.api, policy.network, firewall or Firewall(), f"{LABEL_HOST}={policy.host_id}"
        )
        self._secrets = SecretFiles(memory, policy.host_id)
        # Of all GPUs of this host, by UUID: what a container must not open, unless it was granted.
        self._gpu_minors = gpu_minors or {}
        self._looks = 0
        # Of containers that were seen alive: their first process, as the kernel knows it.
        self._pids: dict[str, int] = {}

    async def describe(self) -> str:
        """Raises ExecutorError where no engine answers."""
        try:
            version = await asyncio.to_thread(self._client.version)
        except _ENGINE_ERRORS as error:
            raise ExecutorError(f"no container engine answers at {self._docker_host}: {error}") from error
        return f"Docker Engine {version['Version']}"

    async def prepare(
        self, order: JobOrder, progress: Progress, confidential: Confidential | None = None
    ) -> None:
        if not order.image:
            raise StartError(EndReason.IMAGE_UNAVAILABLE, "the job names no image")
        if self._runs.is_supervised(order.key):
            return  # an agent before us was killed right after it had asked for the start
        image = await self._have_image(order, progress, confidential.login if confidential else None)
        self._runs.make_folder(order.key)
        # A half-made one of an agent that was killed is not to be trusted.
        await self._start_step(lambda: self._remove_containers(order.key))
        network = None
        if order.network is not Network.NONE:
            progress("making its network")
            network = await self._start_step(lambda: self._networks.make(order, self._labels(order.key)))
        progress("making the container")
        secrets = ""
        if confidential is not None and confidential.files:
            secrets = str(await asyncio.to_thread(self._secrets.write, order.key, confidential.files))
        await self._start_step(lambda: self._create(order, image, network, secrets))

    async def start(self, order: JobOrder, paid_through_ms: int) -> Run:
        found = await self.find(order)
        if found is not None:
            return found
        containers = await self._start_step(lambda: self._containers(order.key))
        if len(containers) != 1:
            raise StartError(EndReason.START_FAILED, "its container is not there")
        spec: dict[str, object] = {
            "container": containers[0],
            "socket": self._socket_path,
        }
        run = await self._runs.start(order, spec, paid_through_ms)
        if self._gpu_minors:
            try:
                fault = await self._start_step(lambda: self._check_devices(run, order))
            except StartError as error:
                fault = str(error)
            if fault:
                await self._runs.end_now(order.key)
                await self._patiently(lambda: self._remove_containers(order.key))
                raise StartError(EndReason.START_FAILED, f"its container was stopped at once: {fault}")
        return run

    async def find(self, order: JobOrder) -> Run | None:
        return self._runs.find(order.key)

    async def output(self, order: JobOrder, offset: int) -> AsyncIterator[tuple[OutputChunk, ...]]:
        while True:
            await self._runs.supervise_again(order.key)
            async for chunks in self._runs.output(order.key, offset):
                yield chunks
                offset = chunks[-1].offset + len(chunks[-1].data)
            if self._runs.has_ended(order.key):
                return

    async def discard_output(self, order: JobOrder, offset: int) -> None:
        self._runs.discard_output(order.key, offset)

    async def is_running(self, order: JobOrder) -> bool:
        run = self._runs.find(order.key)
        if run is None or not self._runs.is_supervised(order.key) or self._runs.has_ended(order.key):
            return False
        try:
            return await asyncio.to_thread(self._is_alive, run.run_id)
        except _ENGINE_ERRORS:
            return False  # nobody knows; we are asked again

    async def wait(self, order: JobOrder) -> RunEnd:
        """A container does not die with its supervisor: it gets another."""
        while True:
            await self._runs.supervise_again(order.key)
            end = await self._runs.wait(order.key)
            if end is not None:
                await asyncio.to_thread(self._secrets.remove, order.key)
                return end
            await self._clock.sleep_ms(_AGAIN_MS)

    async def renew(self, order: JobOrder, paid_through_ms: int) -> None:
        self._runs.renew(order.key, paid_through_ms)

    async def stop(self, order: JobOrder, grace_ms: int) -> None:
        self._runs.stop(order.key, grace_ms)

    async def destroy(self, key: AttemptKey) -> None:
        await self._runs.end_now(key)
        await self._patiently(lambda: self._remove_containers(key))
        await self._patiently(lambda: self._networks.remove(key, self._labels(key)))
        await asyncio.to_thread(self._secrets.remove, key)
        await self._runs.remove(key)

    async def held(self) -> frozenset[AttemptKey]:
        here = self._runs.held() | self._secrets.held()
        return here | await self._patiently(self._held_by_the_engine)

    async def look(self) -> None:
        self._looks += 1
        try:
            told = await asyncio.to_thread(self._networks.look, prove=self._looks % _LOOKS_A_PROOF == 0)
        except _ENGINE_ERRORS as error:
            log.debug("nobody looked at the networks of jobs: %s", _message(error))
            return
        for sentence in told:
            log.warning("%s", sentence)

    async def try_start(self, gpu_uuids: tuple[str, ...]) -> str:
        """Why a container with these GPUs does not start; empty where it does. Leaves nothing behind."""
        order = trial.order(gpu_uuids)
        try:
            image = await self._start_step(lambda: trial.make_image(self._client.api))
            made = await self._start_step(lambda: self._create(order, image, None, ""))
            await self._start_step(lambda: self._client.api.start(made))
        except StartError as error:
            return str(error)
        finally:
            await self._patiently(lambda: self._remove_containers(order.key))
            with contextlib.suppress(*_ENGINE_ERRORS):
                await asyncio.to_thread(self._client.api.remove_image, trial.IMAGE, force=True)
        return ""

    async def try_network(self) -> str:
        """Why a job is not held to what it may reach here; empty where it is. Leaves nothing behind."""
        order = trial.order(network=self._policy.network)
        labels = self._labels(order.key)
        try:
            await self._start_step(lambda: self._networks.make(order, labels))
        except StartError as error:
            return str(error)
        finally:
            await self._patiently(lambda: self._networks.remove(order.key, labels))
        return ""

    async def leave(self) -> None:
        """Remove what outlives every job: images fetched for them, and the packet filter's rules."""
        await asyncio.to_thread(self._images.remove_all)
        await asyncio.to_thread(self._networks.leave)

    async def close(self) -> None:
        self._runs.let_go()
        await asyncio.to_thread(self._client.close)

    async def _have_image(self, order: JobOrder, progress: Progress, login: Login | None) -> Image:
        try:
            return await self._images.have(order.image, progress, login)
        except _ENGINE_ERRORS as error:
            raise _refused(error) from error

    def _create(self, order: JobOrder, image: Image, network: NetworkPlan | None, secrets: str) -> str:
        api = self._client.api
        order = replace(order, image=image.image_id)
        wanted = plan(order, self._policy, image.volumes, network, self._cdi_devices(order), secrets)
        made: str = api.create_container(**create_arguments(api, wanted))["Id"]
        found = differences(wanted, api.inspect_container(made))
        if found:
            api.remove_container(made, v=True, force=True)
            raise StartError(
                EndReason.START_FAILED, f"the engine made another container than asked: {'; '.join(found)}"
            )
        return made

    def _cdi_devices(self, order: JobOrder) -> frozenset[str]:
        """Asked anew each time: what is listed changes with the driver, without a word to us."""
        if all(is_simulated(uuid) for uuid in order.gpu_uuids):
            return frozenset()
        listed = self._client.api.info().get("DiscoveredDevices") or ()
        return frozenset(device["ID"] for device in listed if device["Source"] == "cdi")

    def _check_devices(self, run: Run, order: JobOrder) -> str:
        """Why the container may not go on; empty where it opens its GPUs and no others."""
        pid = self._client.api.inspect_container(run.run_id)["State"]["Pid"]
        if not pid:
            return ""  # it has ended already
        granted = {self._gpu_minors[uuid] for uuid in order.gpu_uuids if uuid in self._gpu_minors}
        try:
            access = devices.access_of(pid, set(self._gpu_minors.values()))
            faults = device_faults(granted, access, devices.nodes_in(pid))
        except devices.UnlookedError as error:
            faults = [f"nobody could look at the devices of its container: {error}"]
        # What has ended under our eyes opens nothing, and in its last moment is in no cgroup of its own.
        return "; ".join(faults) if devices.is_alive(pid) else ""

    def _is_alive(self, container: str) -> bool:
        """By the kernel's word where it can be had: supervisor and engine may learn of an end late."""
        known = self._pids.get(container)
        if known is not None:
            return devices.is_alive(known)
        state = self._client.api.inspect_container(container)["State"]
        if state["Running"] and devices.is_alive(state["Pid"]):
            self._pids[container] = state["Pid"]
        return bool(state["Running"])

    def _labels(self, key: AttemptKey) -> dict[str, str]:
        return labels_of(key, self._policy.host_id)

    def _containers(self, key: AttemptKey) -> list[str]:
        labels = [f"{name}={value}" for name, value in self._labels(key).items()]
        return [found["Id"] for found in self._client.api.containers(all=True, filters={"label": labels})]

    def _remove_containers(self, key: AttemptKey) -> None:
        for container in self._containers(key):
            self._pids.pop(container, None)
            # What is gone already is success.
            with contextlib.suppress(docker.errors.NotFound):
                self._client.api.remove_container(container, v=True, force=True)

    def _held_by_the_engine(self) -> set[AttemptKey]:
        label = f"{LABEL_HOST}={self._policy.host_id}"
        containers = self._client.api.containers(all=True, filters={"label": label})
        found = [*(container["Labels"] for container in containers), *self._networks.held()]
        return {
            AttemptKey(attempt_id=labels[LABEL_ATTEMPT], epoch=int(labels[LABEL_EPOCH])) for labels in found
        }

    async def _start_step(self, step: Callable[[], _T]) -> _T:
        """A call of the engine on the way to a start: whatever is wrong with it, the job can't start.

        Who is cancelled waits for its end: its thread goes on, and what it makes must be there to be removed.
        """
        asked = asyncio.ensure_future(asyncio.to_thread(step))
        try:
            return await asyncio.shield(asked)
        except asyncio.CancelledError:
            await asyncio.gather(asked, return_exceptions=True)
            raise
        except _ENGINE_ERRORS as error:
            raise _refused(error) from error

    async def _patiently(self, step: Callable[[], _T]) -> _T:
        """A call of the engine that must succeed some time: while the engine is away we wait for it."""
        while True:
            try:
                return await asyncio.to_thread(step)
            except _ENGINE_ERRORS as error:
                log.warning("the engine does not answer, asking again: %s", _message(error))
                await self._clock.sleep_ms(_AGAIN_MS)


class _Store:
    """An ImageStore over the engine's client."""

    def __init__(self, client: docker.DockerClient) -> None:
        self._client = client

    def find(self, reference: str) -> Image | None:
        try:
            found = self._client.images.get(reference).attrs
        except docker.errors.APIError as error:
            if error.is_client_error():
                return None  # not here, or no name of an image; the pull will say which
            raise
        volumes = (found.get("Config") or {}).get("Volumes") or {}
        return Image(image_id=found["Id"], volumes=tuple(volumes), size_bytes=found["Size"])

    def remove(self, image_id: str) -> bool:
        try:
            self._client.api.remove_image(image_id)
        except docker.errors.APIError as error:
            if error.status_code == http.HTTPStatus.NOT_FOUND:
                return True
            if error.is_client_error():
                return False  # a container has it, or it has a second name
            raise
        return True

    def root(self) -> Path:
        return Path(self._client.api.info()["DockerRootDir"])


def _refused(error: Exception) -> StartError:
    return StartError(EndReason.START_FAILED, f"the engine refuses: {_message(error)}")


def _message(error: Exception) -> str:
    explanation = getattr(error, "explanation", None)
    return str(explanation or error)
