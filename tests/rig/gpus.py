"""The GPUs that the rig pretends to have; the hook's inventory and the NVML stub agree on them."""

from collections.abc import Sequence
from dataclasses import dataclass

# The character device major of NVIDIA's driver. No driver owns it here, so opening such a node says "no such
# device" where the container's device cgroup lets the call through, and "not permitted" where it does not.
NVIDIA_MAJOR = 195
# That of the driver's capabilities; the driver gets another one at each boot, so it is no number of its own.
CAPS_MAJOR = 509


@dataclass(frozen=True, kw_only=True)
class Gpu:
    uuid: str
    # Of a slice that of the GPU of which it is a part.
    minor: int
    # Only of a slice: the minor of the device that opens it.
    cap: int | None = None


FOUR_GPUS = tuple(Gpu(uuid=f"GPU-{n:08x}-0000-4000-8000-{n:012x}", minor=n) for n in range(4))


def cdi_spec(gpus: Sequence[Gpu], nothing: str) -> dict[str, object]:
    """What the vendor's toolkit writes for engines that read it, as far as a job can tell.

    `nothing` is an empty file of the host's; each GPU's UUID is one in /dev/rig-gpus, as the hook makes it.
    """
    return {
        "cdiVersion": "0.6.0",
        "kind": "nvidia.com/gpu",
        "devices": [
            {
                "name": gpu.uuid,
                "containerEdits": {
                    "deviceNodes": _nodes(gpu),
                    "mounts": [
                        {
                            "hostPath": nothing,
                            "containerPath": f"/dev/rig-gpus/{gpu.uuid}",
                            "options": ["ro", "bind"],
                        }
                    ],
                },
            }
            for gpu in gpus
        ],
    }


def _nodes(gpu: Gpu) -> list[dict[str, object]]:
    nodes = [(f"/dev/nvidia{gpu.minor}", NVIDIA_MAJOR, gpu.minor)]
    if gpu.cap is not None:
        nodes.append((f"/dev/nvidia-caps/nvidia-cap{gpu.cap}", CAPS_MAJOR, gpu.cap))
    return [
        {"path": path, "type": "c", "major": major, "minor": minor, "fileMode": 0o666}
        for path, major, minor in nodes
    ]
