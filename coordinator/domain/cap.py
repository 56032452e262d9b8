"""A buyer's own limit on what the jobs of one calendar month may cost."""

from dataclasses import dataclass
from datetime import UTC, datetime

ALERT_PERCENT_DEFAULT = 80


@dataclass(frozen=True, kw_only=True)
class SpendingCap:
    month_micro: int
    alert_percent: int = ALERT_PERCENT_DEFAULT

    def left_micro(self, used_micro: int) -> int:
        return max(0, self.month_micro - used_micro)

    def warns(self, used_micro: int) -> bool:
        """Is so much used that the buyer wants to be told?"""
        return used_micro * 100 >= self.month_micro * self.alert_percent


@dataclass(frozen=True, kw_only=True)
class Month:
    """From `began_ms` on and before `ends_ms`, in UTC: the same for everybody."""

    began_ms: int
    ends_ms: int
    name: str


def month_of(now_ms: int) -> Month:
    now = datetime.fromtimestamp(now_ms // 1_000, UTC)
    began = datetime(now.year, now.month, 1, tzinfo=UTC)
    ends = datetime(now.year + now.month // 12, now.month % 12 + 1, 1, tzinfo=UTC)
    return Month(began_ms=_ms(began), ends_ms=_ms(ends), name=began.strftime("%Y-%m"))


def _ms(at: datetime) -> int:
    return int(at.timestamp()) * 1_000
