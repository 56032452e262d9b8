"""What the check-up has the engine try, as a job would: an order, and an image with nothing in it."""

import io
import tarfile
from typing import Any

from agent.domain.attempt import AttemptKey, Isolation, JobOrder, Network
from agent.domain.network import NetworkPolicy
from agent.executor.images import Image

KEY = AttemptKey(attempt_id="doctor", epoch=1)
IMAGE = "usance-doctor:empty"
_FOLDERS = (
    "dev",
    "etc",
    "lib",
    "proc",
    "sbin",
    "sys",
    "tmp",
    "usr",
    "usr/bin",
    "usr/lib",
    "var",
    "workspace",
)


def order(gpu_uuids: tuple[str, ...] = (), network: NetworkPolicy | None = None) -> JobOrder:
    """With the most of the network that the policy lets a job have."""
    reach = network.network_max if network else Network.NONE
    return JobOrder(
        key=KEY,
        image=IMAGE,
        # There is none. The engine's own init starts, is given the GPUs, and finds that out.
        command=("/usance-doctor",),
        env={},
        gpu_uuids=gpu_uuids,
        isolation_min=Isolation.CONTAINER,
        stop_grace_ms=0,
        run_ms_max=1_000,
        memory_bytes=0,
        cpu_milli=0,
        network=reach,
        network_destinations=network.destinations if network and reach is Network.ALLOW_LIST else (),
    )


def make_image(api: Any) -> Image:  # noqa: ANN401  # the client has no types
    """Nothing is fetched for it."""
    name, tag = IMAGE.split(":")
    api.import_image_from_data(_empty_root(), repository=name, tag=tag)
    found = api.inspect_image(IMAGE)
    return Image(image_id=found["Id"], volumes=(), size_bytes=found["Size"])


def _empty_root() -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for name in _FOLDERS:
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(folder)
    return content.getvalue()
