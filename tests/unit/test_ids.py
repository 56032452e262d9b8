"""Ids that are made of what they name."""

from runtime.ids import derived_uuid, timed_uuid


def test_the_same_parts_give_the_same_id_and_other_parts_another():
    for make in (derived_uuid, lambda *parts: timed_uuid(5, *parts)):
        assert make("ab", "c") == make("ab", "c")
        assert len({make("ab", "c"), make("a", "bc"), make("abc"), make("ab", "c", 1)}) == 4


def test_timed_ids_sort_by_their_time_and_say_their_version():
    times = [0, 1, 999, 1_000, 2**40, 2**48 - 1]
    ids = [timed_uuid(at_ms, "capture", at_ms % 7) for at_ms in times]
    assert sorted(ids) == ids
    assert [one.int >> 80 for one in ids] == times
    assert {(one.version, one.variant) for one in ids} == {(8, "specified in RFC 4122")}
    assert timed_uuid(1, "x").int & (1 << 62) - 1 != timed_uuid(2, "x").int & (1 << 62) - 1
