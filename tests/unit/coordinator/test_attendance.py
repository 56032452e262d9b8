"""Who was heard is written down once, and not forgotten when that fails."""

from coordinator.api.attendance import Attendance
from coordinator.domain.metering import Stamp


def at(ms: int) -> Stamp:
    return Stamp(boot_id="boot", boot_ms=ms, wall_ms=ms)


def test_each_host_is_taken_once_with_its_latest_moment():
    attendance = Attendance()
    attendance.heard("host_a", at(1))
    attendance.heard("host_b", at(2))
    attendance.heard("host_a", at(3))
    assert attendance.take() == {"host_a": at(3), "host_b": at(2)}
    assert attendance.take() == {}


def test_what_could_not_be_written_is_taken_again_unless_it_is_older():
    attendance = Attendance()
    attendance.heard("host_a", at(1))
    attendance.heard("host_b", at(1))
    lost = attendance.take()
    attendance.heard("host_a", at(2))
    attendance.put_back(lost)
    assert attendance.take() == {"host_a": at(2), "host_b": at(1)}
