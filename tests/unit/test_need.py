"""A machine without the parts skips with a sentence; a machine that must have them fails."""

import pytest

from tests.support.need import need


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
