"""How news is worded, in Chinese and in English.

The words for milestones, flags and reasons are those of the vocabulary's catalogue; here are the
frames around them and nothing else. Plain text without markup, as every channel shows it. Nothing
here knows where a text goes.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from types import MappingProxyType
from typing import Final

from trackd.domain.catalogue import Language, text
from trackd.domain.vocabulary import Flag, Milestone, Reason, ReceivedBy
from trackd.message_url import DEFAULT_TEMPLATE, SHORT_TEMPLATE
from trackd.notify.messages.news import Kind, News

WAYBILL_PLACE: Final = "{waybill}"
"""Where the waybill number stands in the pattern of a tracking link."""

_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]


@dataclass(frozen=True, slots=True)
class Message:
    """A text for a person. news: what is new in a few words, for channels with a form of their
    own (an SMS template); subject: one line; body: everything, the subject left out.
    """

    waybill_number: str
    news: str
    subject: str
    body: str


@dataclass(frozen=True, slots=True)
class _Frames:
    """What stands around the words of one language."""

    subject: str
    by_kind: Mapping[Kind, str]
    comma: str
    status: str
    problem: str
    resolved: str
    reason: str
    received_by: str
    place: str
    time: str
    link: str


_FRAMES: Final[Mapping[Language, _Frames]] = MappingProxyType(
    {
        Language.ZH: _Frames(
            subject="运单 {waybill}：{news}",
            by_kind={
                Kind.CORRECTION: "更正，目前状态为{milestone}",
                Kind.MILESTONE: "{milestone}",
                Kind.PROBLEM: "出现异常（{raised}）",
                Kind.RESOLVED: "异常已解除（{cleared}）",
                Kind.STATUS: "{milestone}",
            },
            comma="、",
            status="状态：{}",
            problem="异常：{}",
            resolved="已解除：{}",
            reason="原因：{}",
            received_by="签收方式：{}",
            place="地点：{}",
            time="时间：{}",
            link="查询：{}",
        ),
        Language.EN: _Frames(
            subject="Parcel {waybill}: {news}",
            by_kind={
                Kind.CORRECTION: "Correction, it is now: {milestone}",
                Kind.MILESTONE: "{milestone}",
                Kind.PROBLEM: "Problem ({raised})",
                Kind.RESOLVED: "Problem resolved ({cleared})",
                Kind.STATUS: "{milestone}",
            },
            comma=", ",
            status="Status: {}",
            problem="Problem: {}",
            resolved="Resolved: {}",
            reason="Reason: {}",
            received_by="Delivered to: {}",
            place="Place: {}",
            time="Time: {}",
            link="Track it: {}",
        ),
    }
)


def worded(
    news: News,
    *,
    language: Language,
    zone: tzinfo,
    template: str = DEFAULT_TEMPLATE,
    place: str = "",
    tracking_link: str = "",
) -> Message:
    """The message that tells the news.

    place: the city, in the language; empty when it is not known. tracking_link: a URL with
    `{waybill}` in it, or empty. A template that is not known is worded as the default one.
    """
    frames = _FRAMES[language]
    told = frames.by_kind[news.kind].format(
        milestone=text(news.milestone, language),
        raised=_listed(news.raised, language),
        cleared=_listed(news.cleared, language),
    )
    lines = []
    if template != SHORT_TEMPLATE:
        lines += _facts(news, language)
        if place:
            lines.append(frames.place.format(place))
        lines.append(frames.time.format(local_time(news.occurred_at_ms, zone, language)))
    if tracking_link:
        link = tracking_link.replace(WAYBILL_PLACE, news.waybill_number)
        lines.append(frames.link.format(link))
    subject = frames.subject.format(waybill=news.waybill_number, news=told)
    return Message(news.waybill_number, told, subject, "\n".join(lines))


def trial_message(language: Language) -> Message:
    """What a test says."""
    told = "这是一条测试消息" if language is Language.ZH else "This is a test message"
    return Message("TEST-0000", told, f"trackd: {told}", "")


def local_time(at_ms: int, zone: tzinfo, language: Language) -> str:
    """A time of day as the recipient's clock shows it. Not by locale: the process may have none."""
    at = datetime.fromtimestamp(at_ms / 1000, UTC).astimezone(zone)
    if language is Language.ZH:
        return f"{at.month}月{at.day}日 {at:%H:%M}"
    return f"{at.day} {_MONTHS[at.month - 1]} {at:%H:%M}"


def _facts(news: News, language: Language) -> list[str]:
    """What the subject does not tell: the status, flags, the reason, who took it."""
    frames = _FRAMES[language]
    is_problem, is_resolved = news.kind is Kind.PROBLEM, news.kind is Kind.RESOLVED
    up = tuple(flag for flag in news.flags if not (is_problem and flag in news.raised))
    lines = []
    if (is_problem or is_resolved) and news.milestone is not Milestone.UNSPECIFIED:
        lines.append(frames.status.format(text(news.milestone, language)))
    if up:
        lines.append(frames.problem.format(_listed(up, language)))
    if news.cleared and not is_resolved:
        lines.append(frames.resolved.format(_listed(news.cleared, language)))
    if news.reason is not Reason.UNSPECIFIED:
        lines.append(frames.reason.format(text(news.reason, language)))
    if news.received_by is not ReceivedBy.UNSPECIFIED:
        lines.append(frames.received_by.format(text(news.received_by, language)))
    return lines


def _listed(flags: Iterable[Flag], language: Language) -> str:
    return _FRAMES[language].comma.join(text(flag, language) for flag in flags)
