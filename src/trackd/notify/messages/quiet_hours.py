"""When not to disturb: a part of every day in a zone, and when it ends.

Plain arithmetic on a time that is handed in. Nothing here knows the time, or waits.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta, tzinfo

_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class QuietHours:
    """From `from_minute` (included) until `until_minute` (not included) of every local day.

    - `until_minute` before `from_minute` means on the next day.
    - By the clock on the wall: where the clocks change, a night is an hour longer or shorter.
    """

    from_minute: int
    until_minute: int
    zone: tzinfo

    def end_ms(self, now_ms: int) -> int | None:
        """When the quiet hours that are on at `now_ms` are over; None if none are."""
        now = datetime.fromtimestamp(now_ms / 1000, UTC).astimezone(self.zone)
        minute = now.hour * 60 + now.minute
        if self.from_minute <= self.until_minute:
            quiet = self.from_minute <= minute < self.until_minute
        else:
            quiet = minute >= self.from_minute or minute < self.until_minute
        if not quiet:
            return None
        end_day = now.date() if minute < self.until_minute else now.date() + _DAY
        end_time = time(self.until_minute // 60, self.until_minute % 60)
        end = datetime.combine(end_day, end_time, tzinfo=self.zone)
        end_ms = round(end.timestamp() * 1000)
        # Where the clocks go back, the wall shows this end a second time, an hour later.
        return end_ms if end_ms > now_ms else round(end.replace(fold=1).timestamp() * 1000)
