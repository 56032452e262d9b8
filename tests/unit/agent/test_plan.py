"""Every protection of the container plan, one by one: each test fails when its line is removed."""

from dataclasses import fields
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from agent.domain.attempt import JobOrder, Network
from agent.domain.network import network_plan
from agent.domain.plan import ContainerPlan, GpuRequest, HostPolicy, plan
from tests.contract.attacks import GUARDED
from tests.support.orders import order

CONTRACTS = Path(__file__).parents[2] / "contract"
GIB = 1 << 30
POLICY = HostPolicy(
    host_id="host_1",
    boot_id="boot",
    cpu_count=16,
    memory_bytes=64 * GIB,
    gpu_count=4,
    workspace_bytes=8 * GIB,
    tmp_bytes=GIB,
    pids_max=512,
    nofile_max=20_000,
)
REAL = "GPU-00000000-0000-4000-8000-000000000000"
SIMULATED = "SIMULATED-1"


def planned(job: JobOrder | None = None, volumes: tuple[str, ...] = ()) -> ContainerPlan:
    return plan(job or order(), POLICY, volumes)


def test_the_runtime_is_named_so_that_no_default_of_the_host_counts():
    assert planned().runtime == "runc"


def test_every_capability_is_dropped():
    assert planned().cap_drop == ("ALL",)


def test_no_program_can_gain_rights():
    assert "no-new-privileges:true" in planned().security_options


def test_the_root_is_read_only():
    assert planned().read_only


def test_of_the_hosts_there_is_nothing_but_the_jobs_own_secrets():
    assert planned().secrets == ""
    assert plan(order(), POLICY, secrets="/dev/shm/a").secrets == "/dev/shm/a"


def test_no_volume_of_the_image_lies_over_the_secrets():
    found = plan(order(), POLICY, ("/run/secrets", "/data"), secrets="/dev/shm/a")
    assert found.tmpfs.keys() == {"/data", "/tmp", "/workspace"}
    assert "/run/secrets" in planned(volumes=("/run/secrets",)).tmpfs


def test_there_is_no_network():
    assert planned().network_mode == "none"
    assert (planned().dns, planned().dns_options, planned().extra_hosts) == ((), (), ())


def test_a_network_is_the_jobs_own():
    job = order(network=Network.ALLOW_LIST, network_destinations=("site.example:443",))
    addresses = {"site.example": [IPv4Address("93.184.215.14")]}
    own = network_plan(
        job, POLICY.network, labels={}, subnet=IPv4Network("10.213.0.0/28"), addresses=addresses
    )
    found = plan(job, POLICY, (), own)
    assert found.network_mode == own.name == "usance-a.1"
    assert found.dns == own.dns == ("192.0.2.1",)
    assert found.dns_options == own.dns_options
    assert found.extra_hosts == ("site.example:93.184.215.14",)


def test_the_user_is_not_root():
    assert planned().user == "10001:10001"


def test_memory_is_limited_and_swap_is_not_more_of_it():
    job = planned(order(memory_bytes=3 * GIB))
    assert (job.memory_bytes, job.memory_swap_bytes) == (3 * GIB, 3 * GIB)


def test_shared_memory_is_part_of_the_memory():
    assert planned(order(memory_bytes=3 * GIB)).shm_bytes == 3 * GIB // 2


def test_processors_are_limited():
    assert planned(order(cpu_milli=1_500)).nano_cpus == 1_500_000_000


def test_processes_are_limited():
    assert planned().pids_max == 512


def test_open_files_are_limited_and_no_core_is_dumped():
    assert {limit.name: limit.value for limit in planned().limits} == {"nofile": 20_000, "core": 0}


def test_the_job_goes_before_the_host_when_memory_is_short():
    assert planned().oom_score_adj == 500


def test_zombies_are_reaped():
    assert planned().init


def test_the_images_health_check_does_not_run():
    assert planned().healthcheck == ("NONE",)


def test_ipc_is_its_own():
    assert planned().ipc_mode == "private"


def test_output_goes_through_the_supervisor_alone():
    assert planned().log_driver == "none"


@pytest.mark.parametrize("path", ["/tmp", "/workspace"])
def test_what_can_be_written_is_small_and_harmless(path):
    options = planned(order(memory_bytes=2 * GIB)).tmpfs[path].split(",")
    assert {"nosuid", "nodev"} <= set(options)
    sizes = [int(option.removeprefix("size=")) for option in options if option.startswith("size=")]
    assert len(sizes) == 1
    assert sizes[0] <= GIB


def test_a_volume_of_the_image_is_no_disk_without_a_limit():
    job = planned(volumes=("/scratch", "/workspace"))
    assert set(job.tmpfs) == {"/tmp", "/workspace", "/scratch"}
    assert "size=" in job.tmpfs["/scratch"]
    assert job.tmpfs["/workspace"] == planned().tmpfs["/workspace"]


def test_gpus_are_asked_for_by_their_uuids():
    job = planned(order(gpu_uuids=(REAL,)))
    capabilities = ("gpu", "compute", "utility")
    assert job.gpus == GpuRequest(driver="", device_ids=(REAL,), capabilities=capabilities)


def test_where_the_engine_lists_them_it_puts_them_in_itself():
    job, names = order(gpu_uuids=(REAL, "GPU-2")), (f"nvidia.com/gpu={REAL}", "nvidia.com/gpu=GPU-2")
    listed = plan(job, POLICY, cdi_devices={*names, "nvidia.com/gpu=all"})
    assert listed.gpus == GpuRequest(driver="cdi", device_ids=names, capabilities=())
    # One way for all of a job's GPUs.
    half = plan(job, POLICY, cdi_devices={names[0]}).gpus
    assert half is not None
    assert half.driver == ""
    assert listed.environment["NVIDIA_VISIBLE_DEVICES"] == "void"
    assert plan(order(), POLICY, cdi_devices=names).gpus is None


def test_a_job_without_gpus_gets_none():
    assert planned().gpus is None


def test_a_simulated_gpu_is_no_device_and_is_told():
    job = planned(order(gpu_uuids=(SIMULATED, "SIMULATED-2")))
    assert job.gpus is None
    assert job.environment["USANCE_SIMULATED_GPUS"] == "SIMULATED-1,SIMULATED-2"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("NVIDIA_VISIBLE_DEVICES", "void"),
        ("NVIDIA_DRIVER_CAPABILITIES", "compute,utility"),
        ("NVIDIA_DISABLE_REQUIRE", ""),
        ("NVIDIA_GDRCOPY", ""),
        ("NVIDIA_GDS", ""),
        ("NVIDIA_IMEX_CHANNELS", ""),
        ("NVIDIA_MIG_CONFIG_DEVICES", ""),
        ("NVIDIA_MIG_MONITOR_DEVICES", ""),
        ("NVIDIA_MOFED", ""),
        ("NVIDIA_NVSWITCH", ""),
        ("DOCKER_RESOURCE_GPU", ""),
        ("LD_PRELOAD", ""),
    ],
)
def test_neither_image_nor_buyer_speaks_to_the_gpu_toolkit_or_the_loader(name, value):
    assert planned(order(env={name: "all"})).environment[name] == value


def test_the_buyers_own_environment_is_there():
    assert planned(order(env={"MINE": "yes", "HOME": "/tmp"})).environment["MINE"] == "yes"
    assert planned(order(env={"HOME": "/tmp"})).environment["HOME"] == "/tmp"


def test_labels_let_it_be_found_again():
    assert planned(order("x", 3)).labels == {
        "usance.attempt": "x",
        "usance.epoch": "3",
        "usance.boot": "boot",
        "usance.host": "host_1",
    }
    assert planned(order("x", 3)).name == "usance-x.3"


def test_without_wishes_a_job_gets_its_gpus_share_and_the_host_keeps_some():
    one = planned(order(gpu_uuids=(REAL,)))
    assert one.nano_cpus == 4_000_000_000
    assert one.memory_bytes == 64 * GIB * 9 // 10 // 4
    both = planned(order(gpu_uuids=(REAL, "GPU-2", "GPU-3", "GPU-4")))
    assert both.nano_cpus == 16_000_000_000
    assert both.memory_bytes < 64 * GIB


# Lines that no attack of tests/contract/attacks.py is about, and the tests that are.
TRIED_ELSEWHERE = {
    "environment": "test_a_bypass_of_the_rig_is_closed",
    "runtime": "test_a_bypass_of_the_rig_is_closed",
    "gpus": "test_what_opens_more_or_less_than_it_bought_is_stopped",
    "dns": "test_names_are_resolved_outside_the_sellers_lan",
    "dns_options": "test_names_are_resolved_outside_the_sellers_lan",
    "extra_hosts": "test_a_list_is_what_stands_in_it",
    "healthcheck": "test_the_image_has_no_say",
    "secrets": "test_only_the_job_sees_them_also_when_the_agent_is_another_by_then",
}
# What the job is, and where the engine keeps no copy of its output: these hold nothing back.
NO_PROTECTION = {"name", "image", "command", "labels", "working_dir", "log_driver"}


def test_every_line_of_the_plan_is_tried_by_an_attack():
    """A line that is added later needs one, too: with the line it fails, and without it it gets through."""
    whole = planned(volumes=("/volume",))
    tried = set()
    for attack in GUARDED.values():
        assert attack.without is not None
        other = attack.without(whole)
        tried |= {name for name, value in vars(whole).items() if value != vars(other)[name]}
    assert not tried & set(TRIED_ELSEWHERE)
    assert tried | set(TRIED_ELSEWHERE) | NO_PROTECTION == {each.name for each in fields(ContainerPlan)}
    found = "".join(path.read_text() for path in CONTRACTS.glob("test_*.py"))
    assert {name for name in TRIED_ELSEWHERE.values() if f"def {name}(" not in found} == set()


def test_nothing_can_be_asked_of_the_engine_that_is_not_in_this_list():
    """Mounts, devices, privileges, host namespaces: there is no field to ask for them with."""
    assert {field.name for field in fields(ContainerPlan)} == {
        *("name", "image", "command", "environment", "labels", "user", "working_dir", "runtime"),
        *("network_mode", "cap_drop", "security_options", "read_only", "tmpfs", "memory_bytes"),
        *("memory_swap_bytes", "nano_cpus", "pids_max", "shm_bytes", "limits", "oom_score_adj", "init"),
        *("healthcheck", "ipc_mode", "log_driver", "gpus"),
        *("dns", "dns_options", "extra_hosts", "secrets"),
    }
