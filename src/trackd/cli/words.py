"""What is said about codes and times to people: names from the catalogue, times in the local zone.

A server newer than this command may use numbers that are not in the catalogue; they stay numbers.
"""

import os
from datetime import UTC, datetime

from trackd.domain.catalogue import Language, text
from trackd.domain.vocabulary import EventCode, Flag, Milestone, Reason, ReceivedBy

_MINUTE_S, _HOUR_S, _DAY_S = 60, 3_600, 86_400

_AGO = {
    Language.EN: ("just now", "{} min", "{} h", "{} days", "1 day", "{} ago", "in {}"),
    Language.ZH: ("刚刚", "{}分钟", "{}小时", "{}天", "1天", "{}前", "{}后"),
}


def language_of_the_machine() -> Language:
    """Chinese where the locale is Chinese, else English."""
    locale = next(
        (os.environ[name] for name in ("LC_ALL", "LC_MESSAGES", "LANG") if os.environ.get(name)), ""
    )
    return Language.ZH if locale.startswith("zh") else Language.EN


def code_text(number: int, language: Language) -> str:
    """What a scan was."""
    return _text(EventCode, number, language)


def milestone_text(number: int, language: Language) -> str:
    """Where a shipment is in its life."""
    return _text(Milestone, number, language)


def flag_text(number: int, language: Language) -> str:
    """What is wrong with it."""
    return _text(Flag, number, language)


def reason_text(number: int, language: Language) -> str:
    """Why something did not go as planned."""
    return _text(Reason, number, language)


def receiver_text(number: int, language: Language) -> str:
    """Who took it."""
    return _text(ReceivedBy, number, language)


def local_time(at_ms: int) -> datetime:
    """A moment in the zone of this machine (TZ)."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).astimezone()


def relative_time(at_ms: int, *, now_ms: int, language: Language) -> str:
    """How long ago a moment was, or how far ahead it is, to the largest whole unit."""
    just_now, minutes, hours, days, one_day, ago, ahead = _AGO[language]
    seconds = abs(now_ms - at_ms) // 1000
    if seconds < _MINUTE_S:
        return just_now
    if seconds < _HOUR_S:
        span = minutes.format(seconds // _MINUTE_S)
    elif seconds < _DAY_S:
        span = hours.format(seconds // _HOUR_S)
    elif seconds < 2 * _DAY_S:
        span = one_day
    else:
        span = days.format(seconds // _DAY_S)
    return (ago if at_ms <= now_ms else ahead).format(span)


def _text(
    words: type[EventCode | Milestone | Flag | Reason | ReceivedBy], number: int, language: Language
) -> str:
    try:
        return text(words(number), language)
    except ValueError:
        return str(number)
