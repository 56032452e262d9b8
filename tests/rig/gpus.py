"""The GPUs that the rig pretends to have; the hook's inventory and the NVML stub agree on them."""

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
