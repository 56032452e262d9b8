"""The kernel's counts against a container, as both versions of cgroups write them."""

import pytest

from agent.executor.supervisor.counters import Counters, count_of


@pytest.mark.parametrize(
    ("text", "name", "count"),
    [
        ("low 0\nhigh 0\nmax 7\noom 2\noom_kill 3\noom_group_kill 1\n", "oom_kill", 3),
        ("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n", "oom_kill", 2),
        ("max 12\n", "max", 12),
        ("oom_kill_disable 1\n", "oom_kill", 0),
        ("", "max", 0),
    ],
)
def test_a_count_is_read(text, name, count):
    assert count_of(text, name) == count


def test_who_is_gone_is_not_counted():
    counters = Counters(0)
    counters.look()
    assert (counters.oom_kills, counters.forks_refused, counters.alarms()) == (0, 0, [])
