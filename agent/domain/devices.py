"""Which GPU devices a container may open, and what is wrong where it is otherwise."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum

# The character device major of NVIDIA's driver. From minor 128 on there are nodes that all GPUs share.
GPU_MAJOR = 195
GPU_MINOR_END = 128


class Access(StrEnum):
    """What the kernel says when somebody under a container's device rules opens a node."""

    OPEN = "open"
    REFUSED = "refused"
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class Node:
    """A device node that stands in a container."""

    path: str
    is_block: bool
    major: int
    minor: int


def device_faults(
    granted: Collection[int], access: Mapping[int, Access], nodes: Collection[Node]
) -> list[str]:
    """In words; empty where the granted GPUs open and nothing else does. GPUs go by their minors."""
    faults = []
    for minor, answer in sorted(access.items()):
        wanted = Access.OPEN if minor in granted else Access.REFUSED
        if answer is not wanted:
            faults.append(f"GPU {minor} is {answer} to the container and should be {wanted}")
    there = {node.minor for node in nodes if _is_gpu(node)}
    faults += [f"GPU {minor} has no node in the container" for minor in sorted(set(granted) - there)]
    for node in nodes:
        if node.is_block or (_is_gpu(node) and node.minor not in granted):
            faults.append(f"the device {node.path} is in the container")
    return faults


def _is_gpu(node: Node) -> bool:
    return not node.is_block and node.major == GPU_MAJOR and node.minor < GPU_MINOR_END
