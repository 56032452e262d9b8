"""What is said of the devices that a container can open."""

import pytest

from agent.domain.devices import Access, Node, device_faults

OPEN, REFUSED, UNKNOWN = Access.OPEN, Access.REFUSED, Access.UNKNOWN


def gpu(minor: int) -> Node:
    return Node(path=f"/dev/nvidia{minor}", is_block=False, major=195, minor=minor)


FIRST = gpu(0)
CONTROL = Node(path="/dev/nvidiactl", is_block=False, major=195, minor=255)
NULL = Node(path="/dev/null", is_block=False, major=1, minor=3)
DISK = Node(path="/dev/mapper/root", is_block=True, major=195, minor=0)


@pytest.mark.parametrize(
    ("granted", "access", "nodes", "words"),
    [
        ({0}, {0: OPEN, 1: REFUSED}, [FIRST, CONTROL, NULL], []),
        (set(), {0: REFUSED, 1: REFUSED}, [NULL], []),
        ({0, 1}, {0: OPEN, 1: OPEN}, [FIRST, gpu(1)], []),
        ({0}, {0: OPEN, 1: OPEN}, [FIRST], ["GPU 1 is open to the container and should be refused"]),
        ({0}, {0: OPEN, 1: UNKNOWN}, [FIRST], ["GPU 1 is unknown to the container and should be refused"]),
        ({0}, {0: REFUSED}, [FIRST], ["GPU 0 is refused to the container and should be open"]),
        ({0}, {0: OPEN}, [], ["GPU 0 has no node in the container"]),
        (set(), {0: REFUSED}, [FIRST], ["the device /dev/nvidia0 is in the container"]),
        (set(), {}, [DISK], ["the device /dev/mapper/root is in the container"]),
    ],
)
def test_the_granted_gpus_open_and_nothing_else(granted, access, nodes, words):
    assert device_faults(granted, access, nodes) == words
