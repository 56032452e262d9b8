"""A machine without the parts skips with a sentence; a machine that must have them fails."""

import os

import pytest

from tests.rig import dockerd
from tests.rig.parts import MissingError
from tests.support.need import need, need_history


def test_what_is_there_lets_the_test_run():
    need(condition=True, what="water", how="dig a well")


def test_a_bare_machine_skips_and_is_told_why(monkeypatch):
    monkeypatch.delenv("USANCE_REQUIRE_ALL", raising=False)
    with pytest.raises(pytest.skip.Exception, match="needs water: dig a well"):
        need(condition=False, what="water", how="dig a well")


def test_a_prepared_machine_fails(monkeypatch):
    monkeypatch.setenv("USANCE_REQUIRE_ALL", "1")
    with pytest.raises(pytest.fail.Exception, match="needs water: dig a well"):
        need(condition=False, what="water", how="dig a well")


def test_an_engine_that_can_not_start_leaves_nothing_open(monkeypatch):
    def missing(*_: object, **__: object) -> None:
        raise MissingError("the program dockerd", "install it")

    monkeypatch.setattr(dockerd, "find_program", missing)
    before = sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(MissingError), dockerd.running_engine():
        pass
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_a_checkout_without_history_skips_anywhere(monkeypatch):
    monkeypatch.setenv("USANCE_REQUIRE_ALL", "1")
    need_history(condition=True)
    with pytest.raises(pytest.skip.Exception, match="unshallow"):
        need_history(condition=False)
