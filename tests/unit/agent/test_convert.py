"""What the coordinator says is checked where it comes in: ids name folders and containers here."""

from dataclasses import replace

import pytest

from agent.domain.attempt import AttemptKey, AttemptReport, AttemptState, EndReason, Isolation
from agent.domain.gpu import GpuInfo, GpuSample
from agent.domain.health import Condition, GpuHealth
from agent.domain.host import Hello, HostFacts, Terms
from agent.domain.use import JobFigures
from agent.link import convert
from tests.support.fake_coordinator import desired_attempt
from usance.v1 import host_pb2, types_pb2


def received(**changes):
    attempt = desired_attempt("true", attempt_id="attempt_1", gpu_uuids=("g",))
    for name, value in changes.items():
        setattr(attempt, name, value)
    return convert.DesiredReader().read(host_pb2.Desired(attempts=[attempt]))[0]


def test_unset_fields_mean_what_the_contract_says():
    bare = host_pb2.DesiredAttempt(attempt_id="a", epoch=1, spec=types_pb2.JobSpec(command=["true"]))
    (found,) = convert.DesiredReader().read(host_pb2.Desired(attempts=[bare]))
    assert found.order.isolation_min is Isolation.CONTAINER
    assert found.order.stop_grace_ms == 10_000
    assert found.order.run_ms_max == 86_400_000
    assert found.stop_reason is None


def test_what_comes_again_is_read_again_only_where_it_is_another():
    reader, one = convert.DesiredReader(), desired_attempt("true", attempt_id="a", gpu_uuids=("g",))
    other = desired_attempt("true", attempt_id="b", gpu_uuids=("h",))
    first = reader.read(host_pb2.Desired(attempts=[one, other]))
    other.paid_through_ms += 1
    second = reader.read(host_pb2.Desired(attempts=[one, other]))
    assert second[0] is first[0]
    assert second[1].paid_through_ms == first[1].paid_through_ms + 1
    assert reader.read(host_pb2.Desired()) == ()


def test_a_grace_of_nothing_is_nothing():
    bare = host_pb2.DesiredAttempt(
        attempt_id="a", epoch=1, spec=types_pb2.JobSpec(command=["true"], stop_grace_ms=0)
    )
    assert convert.DesiredReader().read(host_pb2.Desired(attempts=[bare]))[0].order.stop_grace_ms == 0


@pytest.mark.parametrize("attempt_id", ["", "../up", "a/b", "A", "a.b", "x" * 65, "a\n"])
def test_an_id_that_is_none_is_refused(attempt_id):
    with pytest.raises(convert.BrokenProtocolError):
        received(attempt_id=attempt_id)


def test_an_epoch_that_is_none_is_refused():
    with pytest.raises(convert.BrokenProtocolError):
        received(epoch=0)


def test_an_order_without_a_command_is_refused():
    empty = host_pb2.DesiredAttempt(attempt_id="a", epoch=1)
    with pytest.raises(convert.BrokenProtocolError):
        convert.DesiredReader().read(host_pb2.Desired(attempts=[empty]))


def test_a_reason_of_a_newer_coordinator_is_a_reason():
    assert received(stop_reason=types_pb2.END_REASON_RECLAIMED).stop_reason is EndReason.RECLAIMED
    assert received(stop_reason=99).stop_reason is EndReason.CANCELLED


def test_every_reason_of_the_contract_is_known():
    named = {name.removeprefix("END_REASON_") for name, _ in types_pb2.EndReason.items()}
    assert named == {reason.name for reason in EndReason} | {"UNSPECIFIED"}


def test_how_a_job_goes_is_reported_without_what_is_not_known():
    figures = JobFigures(
        cpu_milli=1_500,
        gpus=(GpuSample(uuid="g", utilization_percent=0, power_mw=333_000),),
    )
    report = AttemptReport(
        key=AttemptKey(attempt_id="a", epoch=1),
        state=AttemptState.RUNNING,
        container_id="c",
        run_ms=5,
        detail="",
        ending=None,
        figures=figures,
    )
    (told,) = convert.beat_request(1, [report]).beat.attempts
    assert told.figures.cpu_milli == 1_500
    assert not told.figures.HasField("memory_bytes")
    (gpu,) = told.figures.gpus
    assert (gpu.gpu_uuid, gpu.utilization_percent, gpu.power_mw) == ("g", 0, 333_000)
    assert gpu.HasField("utilization_percent")
    assert not gpu.HasField("temperature_c")


def test_a_reason_of_bad_health_is_cut_to_what_the_contract_takes():
    gpu = GpuInfo(uuid="g", model="m", vram_bytes=1, simulated=False, compute_capability="", board_uuid="b")
    facts = HostFacts(
        hostname="",
        cpu_count=1,
        memory_bytes=1,
        disk_free_bytes=1,
        gpus=(gpu, replace(gpu, uuid="h")),
        isolation=Isolation.CONTAINER,
        executor="",
        driver_version="",
        cuda_version="",
        region="",
        labels={},
        gpu_healths={"g": GpuHealth(condition=Condition.LOST, reason="ü" * 200)},
    )
    terms = Terms(gpu_hour_prices_micro={}, run_ms_max=0, trusted_accounts=(), reclaim_notice_ms=0)
    hello = Hello(agent_version="", boot_id="b", facts=facts, terms=terms)
    lost, well = convert.hello_request(hello).hello.facts.gpus
    assert (lost.health, lost.health_reason) == (types_pb2.GPU_HEALTH_LOST, "ü" * 128)
    assert (well.health, well.health_reason) == (types_pb2.GPU_HEALTH_HEALTHY, "")
    assert lost.board_uuid == "b"
