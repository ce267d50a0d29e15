"""Times as files write them, to milliseconds since the epoch. Knows no file and no event."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

ReadTime = Callable[[str], int]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


def time_reader(*, style: str, zone: str | None) -> ReadTime:
    """How to read times of one style: `iso`, `unix_s`, `unix_ms`, or a format of strptime.

    The reader gives milliseconds since the epoch; ValueError for a text that is no such time.
    """
    if style == "unix_s":
        return lambda text: _moment(_EPOCH, timedelta(seconds=float(text)))
    if style == "unix_ms":
        return lambda text: _moment(_EPOCH, timedelta(milliseconds=float(text)))
    local = ZoneInfo(zone) if zone else None
    if style == "iso":
        return lambda text: _moment(_zoned(datetime.fromisoformat(text), local))
    return lambda text: _moment(_zoned(datetime.strptime(text, style), local))  # noqa: DTZ007


def _zoned(when: datetime, local: ZoneInfo | None) -> datetime:
    if when.tzinfo is not None:
        return when
    if local is None:
        raise ValueError("has no offset, and the mapping names no zone")
    return when.replace(tzinfo=local)


def _moment(when: datetime, later: timedelta = timedelta(0)) -> int:
    try:
        return (when + later - _EPOCH) // _MILLISECOND
    except OverflowError:
        raise ValueError("is too far from now") from None
