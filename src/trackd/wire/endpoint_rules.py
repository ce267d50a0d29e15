"""What an endpoint may be: the one place that says no to its fields, and fills in the defaults.

Nothing here keeps anything.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from trackd.endpoint_url import UnusableUrl, webhook_url
from trackd.feed.filters import UnusableFilter
from trackd.message_url import DEFAULT_TEMPLATE, TEMPLATES, check_message_url, scheme_of
from trackd.v1.feed_pb2 import Subscription
from trackd.v1.notification_pb2 import Endpoint, EndpointKind, Envelope
from trackd.wire.errors import CallError, invalid
from trackd.wire.requests import refused_filter
from trackd.wire.subscription_messages import filter_fields, filter_message

TEXT_CHARACTERS_MAX = 200
LANGUAGES = ("zh", "en")
DEFAULT_ZONE = "Asia/Shanghai"
RATE_CAP_MESSAGES_MAX = 10_000
RATE_CAP_PER_MS_MIN, RATE_CAP_PER_MS_MAX = 1_000, 604_800_000
OVERLAP_MS_DEFAULT, OVERLAP_MS_MAX = 86_400_000, 604_800_000

# The schedule of the contract: the first attempt at once, and each other after one of these.
RETRY_BACKOFF_MS = (
    5_000, 30_000, 120_000, 600_000, 1_800_000, 3_600_000, 7_200_000, 18_000_000, 36_000_000,
    86_400_000,
)  # fmt: skip
# An attempt takes 15 s at most, and waits for the one before it in its notifier as long.
_ACK_TIMEOUT_MS = 60_000
_MAX_IN_FLIGHT = 1_000

_MINUTES_OF_A_DAY = 24 * 60


@dataclass(frozen=True, slots=True)
class UrlRules:
    """Where endpoints may be. message_schemes: those of apprise that are allowed."""

    allow_local: bool
    message_schemes: Collection[str]


def checked(endpoint: Endpoint, url: str, rules: UrlRules) -> Endpoint:
    """The endpoint as it is kept and shown, without what the server sets. Raises CallError.

    url: its URL, or the one that it keeps. May block: not for the event loop.
    """
    kept = Endpoint(
        description=_text("endpoint.description", endpoint.description),
        kind=endpoint.kind,
        all_changes=endpoint.all_changes,
    )
    if endpoint.HasField("filter"):
        try:
            kept.filter.CopyFrom(filter_message(filter_fields(endpoint.filter)))
        except UnusableFilter as error:
            raise refused_filter("endpoint.filter", error) from None
        kept.filter.news_only = False
    if endpoint.kind == EndpointKind.ENDPOINT_KIND_WEBHOOK:
        _add_webhook(kept, endpoint, url, rules)
    elif endpoint.kind == EndpointKind.ENDPOINT_KIND_MESSAGE:
        _add_message(kept, endpoint, url, rules)
    else:
        raise _refused("endpoint.kind", "must be WEBHOOK or MESSAGE")
    return kept


def checked_reason(text: str) -> str:
    """Why an endpoint is disabled. Raises CallError."""
    return _text("reason", text)


def overlap_ms(asked: int) -> int:
    """How long an old secret goes on signing. Raises CallError."""
    if asked == 0:
        return OVERLAP_MS_DEFAULT
    if asked == -1:
        return 0
    if not 0 < asked <= OVERLAP_MS_MAX:
        raise _refused("overlap_ms", f"must be -1 to {OVERLAP_MS_MAX}")
    return asked


def subscription_of(endpoint: Endpoint, before: Subscription | None = None) -> Subscription:
    """The named subscription through which an endpoint is told.

    before: the one that it had, which may have been given another schedule: that stays.
    """
    subscription = Subscription(
        name=subscription_name(endpoint.id),
        ack_timeout_ms=_ACK_TIMEOUT_MS,
        max_attempts=len(RETRY_BACKOFF_MS) + 1,
        max_in_flight=_MAX_IN_FLIGHT,
        retry_backoff_ms=RETRY_BACKOFF_MS,
        supersede=True,
    )
    if before is not None:
        subscription.CopyFrom(before)
        subscription.ClearField("start")
    subscription.filter.CopyFrom(endpoint.filter)
    subscription.filter.news_only = not endpoint.all_changes
    return subscription


SUBSCRIPTION_PREFIX = "endpoint/"


# Ours; one that somebody else named otherwise is left alone.
_OWN_SUBSCRIPTION = re.compile(re.escape(SUBSCRIPTION_PREFIX) + r"ep_[a-z2-7]{16}").fullmatch


def subscription_name(endpoint_id: str) -> str:
    """The name of an endpoint's subscription."""
    return SUBSCRIPTION_PREFIX + endpoint_id


def endpoint_of(subscription: str) -> str | None:
    """The id of the endpoint whose subscription has this name; None if no endpoint's could."""
    return (
        subscription.removeprefix(SUBSCRIPTION_PREFIX) if _OWN_SUBSCRIPTION(subscription) else None
    )


def _add_webhook(kept: Endpoint, endpoint: Endpoint, url: str, rules: UrlRules) -> None:
    try:
        webhook_url(url, allow_local=rules.allow_local)
    except UnusableUrl as error:
        raise _refused("endpoint.url", str(error)) from None
    for name in ("language", "quiet_hours", "rate_cap", "template"):
        if any(field.name == name for field, _ in endpoint.ListFields()):
            raise _refused(f"endpoint.{name}", "is for endpoints of kind MESSAGE")
    if endpoint.envelope not in Envelope.values():
        raise _refused("endpoint.envelope", "must be STANDARD or CLOUDEVENTS")
    kept.url = url
    kept.envelope = endpoint.envelope or Envelope.ENVELOPE_STANDARD


def _add_message(kept: Endpoint, endpoint: Endpoint, url: str, rules: UrlRules) -> None:
    try:
        check_message_url(url, schemes=rules.message_schemes, allow_local=rules.allow_local)
    except UnusableUrl as error:
        raise _refused("endpoint.url", str(error)) from None
    if endpoint.envelope:
        raise _refused("endpoint.envelope", "is for endpoints of kind WEBHOOK")
    kept.url = f"{scheme_of(url)}://…"
    kept.language = endpoint.language or LANGUAGES[0]
    if kept.language not in LANGUAGES:
        raise _refused("endpoint.language", f"must be one of {', '.join(LANGUAGES)}")
    kept.template = endpoint.template or DEFAULT_TEMPLATE
    if kept.template not in TEMPLATES:
        raise _refused("endpoint.template", f"must be one of {', '.join(TEMPLATES)}")
    if endpoint.HasField("quiet_hours"):
        _add_quiet_hours(kept, endpoint)
    if endpoint.HasField("rate_cap"):
        _add_rate_cap(kept, endpoint)


def _add_quiet_hours(kept: Endpoint, endpoint: Endpoint) -> None:
    hours = endpoint.quiet_hours
    for name in ("from_minute", "until_minute"):
        if not 0 <= getattr(hours, name) < _MINUTES_OF_A_DAY:
            raise _refused(f"endpoint.quiet_hours.{name}", "must be 0 to 1439")
    if hours.from_minute == hours.until_minute:
        raise _refused("endpoint.quiet_hours", "begin and end at the same minute")
    kept.quiet_hours.CopyFrom(hours)
    kept.quiet_hours.time_zone = hours.time_zone or DEFAULT_ZONE
    try:
        ZoneInfo(kept.quiet_hours.time_zone)
    except (ValueError, OSError, LookupError):
        raise _refused("endpoint.quiet_hours.time_zone", "is no time zone") from None


def _add_rate_cap(kept: Endpoint, endpoint: Endpoint) -> None:
    cap = endpoint.rate_cap
    if not 1 <= cap.messages <= RATE_CAP_MESSAGES_MAX:
        raise _refused("endpoint.rate_cap.messages", f"must be 1 to {RATE_CAP_MESSAGES_MAX}")
    if not RATE_CAP_PER_MS_MIN <= cap.per_ms <= RATE_CAP_PER_MS_MAX:
        raise _refused(
            "endpoint.rate_cap.per_ms", f"must be {RATE_CAP_PER_MS_MIN} to {RATE_CAP_PER_MS_MAX}"
        )
    kept.rate_cap.CopyFrom(cap)


def _text(name: str, text: str) -> str:
    if len(text) > TEXT_CHARACTERS_MAX or not text.isprintable():
        raise _refused(name, f"must be at most {TEXT_CHARACTERS_MAX} printable characters")
    return text


def _refused(name: str, message: str) -> CallError:
    return invalid(name, message, "INVALID_ENDPOINT")
