"""The stand-in hook decides as NVIDIA's does, weaknesses included."""

import pytest

from tests.rig.gpus import CAPS_MAJOR as RIG_CAPS_MAJOR
from tests.rig.gpus import FOUR_GPUS
from tests.rig.gpus import NVIDIA_MAJOR as RIG_MAJOR
from tests.rig.nvidia_hook import CAPS_MAJOR, NVIDIA_MAJOR, Grant, HookSettings, grant

INVENTORY = {gpu.uuid: gpu.minor for gpu in FOUR_GPUS}
FIRST, SECOND, _, FOURTH = INVENTORY
EVERYTHING = Grant(uuids=tuple(INVENTORY))
NOTHING = Grant()
SWARM = HookSettings(swarm_resource="DOCKER_RESOURCE_GPU")
DISTRUSTING = HookSettings(accept_envvar_when_unprivileged=False)


@pytest.mark.parametrize(
    ("env", "settings", "expected"),
    [
        ({}, HookSettings(), NOTHING),
        ({"NVIDIA_VISIBLE_DEVICES": ""}, HookSettings(), NOTHING),
        ({"NVIDIA_VISIBLE_DEVICES": "void"}, HookSettings(), NOTHING),
        ({"NVIDIA_VISIBLE_DEVICES": "none"}, HookSettings(), NOTHING),
        ({"NVIDIA_VISIBLE_DEVICES": "all"}, HookSettings(), EVERYTHING),
        ({"NVIDIA_VISIBLE_DEVICES": f"{FIRST},3"}, HookSettings(), Grant(uuids=(FIRST, FOURTH))),
        ({"NVIDIA_VISIBLE_DEVICES": "GPU-x"}, HookSettings(), Grant(error="unknown device: GPU-x")),
        ({"CUDA_VERSION": "12"}, HookSettings(), EVERYTHING),
        ({"CUDA_VERSION": "12", "NVIDIA_REQUIRE_CUDA": "cuda>=12"}, HookSettings(), NOTHING),
        ({"NVIDIA_VISIBLE_DEVICES": FIRST, "DOCKER_RESOURCE_GPU": SECOND}, SWARM, Grant(uuids=(SECOND,))),
        ({"NVIDIA_VISIBLE_DEVICES": FIRST}, SWARM, Grant(uuids=(FIRST,))),
        ({"NVIDIA_VISIBLE_DEVICES": FIRST}, DISTRUSTING, NOTHING),
        ({"NVIDIA_VISIBLE_DEVICES": FIRST}, HookSettings(fail="no driver"), Grant(error="no driver")),
    ],
)
def test_what_a_container_gets(env, settings, expected):
    assert grant(env, privileged=False, settings=settings, inventory=INVENTORY) == expected


def test_privilege_is_trusted():
    env = {"NVIDIA_VISIBLE_DEVICES": FIRST}
    granted = grant(env, privileged=True, settings=DISTRUSTING, inventory=INVENTORY)
    assert granted == Grant(uuids=(FIRST,))


def test_the_program_and_the_rig_speak_of_the_same_devices():
    assert (NVIDIA_MAJOR, CAPS_MAJOR) == (RIG_MAJOR, RIG_CAPS_MAJOR)
