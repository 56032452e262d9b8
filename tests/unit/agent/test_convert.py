"""What the coordinator says is checked where it comes in: ids name folders and containers here."""

import pytest

from agent.domain.attempt import EndReason, Isolation
from agent.link import convert
from tests.support.fake_coordinator import desired_attempt
from usance.v1 import host_pb2, types_pb2


def received(**changes):
    attempt = desired_attempt("true", attempt_id="attempt_1", gpu_uuids=("g",))
    for name, value in changes.items():
        setattr(attempt, name, value)
    return convert.desired(host_pb2.Desired(attempts=[attempt]))[0]


def test_unset_fields_mean_what_the_contract_says():
    bare = host_pb2.DesiredAttempt(attempt_id="a", epoch=1, spec=types_pb2.JobSpec(command=["true"]))
    (found,) = convert.desired(host_pb2.Desired(attempts=[bare]))
    assert found.order.isolation_min is Isolation.CONTAINER
    assert found.order.stop_grace_ms == 10_000
    assert found.order.run_ms_max == 86_400_000
    assert found.stop_reason is None


def test_a_grace_of_nothing_is_nothing():
    bare = host_pb2.DesiredAttempt(
        attempt_id="a", epoch=1, spec=types_pb2.JobSpec(command=["true"], stop_grace_ms=0)
    )
    assert convert.desired(host_pb2.Desired(attempts=[bare]))[0].order.stop_grace_ms == 0


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
        convert.desired(host_pb2.Desired(attempts=[empty]))


def test_a_reason_of_a_newer_coordinator_is_a_reason():
    assert received(stop_reason=types_pb2.END_REASON_RECLAIMED).stop_reason is EndReason.RECLAIMED
    assert received(stop_reason=99).stop_reason is EndReason.CANCELLED


def test_every_reason_of_the_contract_is_known():
    named = {name.removeprefix("END_REASON_") for name, _ in types_pb2.EndReason.items()}
    assert named == {reason.name for reason in EndReason} | {"UNSPECIFIED"}
