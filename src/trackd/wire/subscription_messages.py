"""Named subscriptions as messages: settings in, validated; settings, deliveries and more out.

A delivery is joined from slices: a change is its wire bytes already, made once for all who get it.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

import grpc

from trackd.feed.change import varint
from trackd.feed.consumer import CREDITS_MAX, Given
from trackd.feed.filters import UnusableFilter
from trackd.feed.lane import StoredChange
from trackd.feed.runs import RUN_BYTES_MAX
from trackd.feed.subscription_settings import (
    FilterFields,
    SubscriptionDocument,
    SubscriptionSettings,
)
from trackd.v1.feed_pb2 import (
    START_FROM_EARLIEST,
    START_FROM_NOW,
    START_FROM_SNAPSHOT,
    START_FROM_UNSPECIFIED,
    ChangeFilter,
    FeedStart,
    ParkedChange,
    Subscription,
)
from trackd.wire.errors import CallError, invalid
from trackd.wire.requests import refused_filter

NAME_LENGTH_MAX = 64
ACK_TIMEOUT_MS = (100, 3_600_000)
MAX_ATTEMPTS = (1, 1_000)
MAX_IN_FLIGHT = (1, 100_000)
CREDITS = (1, CREDITS_MAX)
DELAY_MS_MAX = 604_800_000
BACKOFFS_MAX = 100
REASON_LENGTH_MAX = 200

ACK_TIMEOUT_MS_DEFAULT = 30_000
MAX_ATTEMPTS_DEFAULT = 10
MAX_IN_FLIGHT_DEFAULT = 1_000
RETRY_BACKOFF_MS_DEFAULT = (1_000, 5_000, 30_000, 120_000, 600_000)

NOW, EARLIEST = "now", "earliest"

_IS_NAME = re.compile(r"[a-z0-9][a-z0-9._/-]{0,63}").fullmatch

# Tags of length-delimited fields: number << 3 | 2.
_CHANGE = b"\x0a"
_FIRST_ATTEMPT = b"\x10\x01"
_DELIVERY = b"\x12"
_RUN = b"\x1a"


# Settings in.


def settings_of(asked: Subscription) -> SubscriptionSettings:
    """The settings in a message, the defaults filled in. Raises CallError."""
    return SubscriptionSettings(
        name=name_of(asked.name, "subscription.name"),
        filter=_filter_of(asked),
        ack_timeout_ms=_number(
            "ack_timeout_ms", asked.ack_timeout_ms or ACK_TIMEOUT_MS_DEFAULT, *ACK_TIMEOUT_MS
        ),
        max_attempts=_number(
            "max_attempts", asked.max_attempts or MAX_ATTEMPTS_DEFAULT, *MAX_ATTEMPTS
        ),
        max_in_flight=_number(
            "max_in_flight", asked.max_in_flight or MAX_IN_FLIGHT_DEFAULT, *MAX_IN_FLIGHT
        ),
        retry_backoff_ms=_backoff_of(asked.retry_backoff_ms),
        supersede=asked.supersede,
    )


def name_of(name: str, field: str = "name") -> str:
    """A subscription's name. Raises CallError."""
    if not _IS_NAME(name):
        message = (
            f"must be 1-{NAME_LENGTH_MAX} of a-z, 0-9, hyphen, underscore, dot and slash,"
            " beginning with a letter or digit"
        )
        raise invalid(field, message, "INVALID_FIELD", limit=NAME_LENGTH_MAX)
    return name


def within(field: str, value: int, least: int, most: int) -> int:
    """A number between its bounds. Raises CallError."""
    if not least <= value <= most:
        limit = most if value > most else least
        raise invalid(field, f"must be {least}-{most}, not {value}", "INVALID_FIELD", limit=limit)
    return value


def reason_of(text: str, field: str) -> str:
    """Why something failed. Raises CallError."""
    if len(text) > REASON_LENGTH_MAX:
        message = f"at most {REASON_LENGTH_MAX} characters, not {len(text)}"
        raise invalid(field, message, "INVALID_FIELD", limit=REASON_LENGTH_MAX)
    return text


def _number(field: str, value: int, least: int, most: int) -> int:
    return within(f"subscription.{field}", value, least, most)


def _backoff_of(waits: Sequence[int]) -> tuple[int, ...]:
    field = "subscription.retry_backoff_ms"
    if len(waits) > BACKOFFS_MAX:
        message = f"at most {BACKOFFS_MAX}, not {len(waits)}"
        raise invalid(field, message, "INVALID_FIELD", limit=BACKOFFS_MAX)
    checked = tuple(within(field, wait, 0, DELAY_MS_MAX) for wait in waits)
    return checked or RETRY_BACKOFF_MS_DEFAULT


def _filter_of(asked: Subscription) -> FilterFields:
    try:
        return filter_fields(asked.filter)
    except UnusableFilter as error:
        raise refused_filter("subscription.filter", error) from None


def filter_fields(asked: ChangeFilter) -> FilterFields:
    """A filter as it is kept: in order, waybills in their normal form. Raises UnusableFilter."""
    if asked.account_ids:
        raise UnusableFilter("account_ids", "no shipment belongs to an account yet")
    made = FilterFields(
        tuple(asked.waybill_numbers),
        tuple(sorted(set(asked.milestones))),
        tuple(sorted(set(asked.flags))),
        tuple(sorted(set(asked.facility_codes))),
        asked.news_only,
    )
    return replace(made, waybill_numbers=tuple(sorted(made.made().waybill_numbers)))


def start_of(asked: Subscription) -> str:
    """Where to start: NOW, EARLIEST, or a resume token. Raises CallError."""
    if not asked.HasField("start") or asked.start.WhichOneof("place") is None:
        return NOW
    if asked.start.WhichOneof("place") == "resume_token":
        return asked.start.resume_token
    place = getattr(asked.start, "from")
    if place in {START_FROM_UNSPECIFIED, START_FROM_NOW}:
        return NOW
    if place == START_FROM_EARLIEST:
        return EARLIEST
    message = (
        "a named subscription cannot start with a snapshot"
        if place == START_FROM_SNAPSHOT
        else f"{place} is not a StartFrom"
    )
    raise invalid("subscription.start.from", message, "INVALID_FIELD")


# Settings out.


def subscription_message(document: SubscriptionDocument) -> Subscription:
    """The settings as a message."""
    settings = document.settings
    message = Subscription(
        name=settings.name,
        ack_timeout_ms=settings.ack_timeout_ms,
        max_attempts=settings.max_attempts,
        max_in_flight=settings.max_in_flight,
        retry_backoff_ms=settings.retry_backoff_ms,
        start=_start_message(document.start_text),
        supersede=settings.supersede,
        created_at_ms=document.created_at_ms,
    )
    if settings.filter != FilterFields():
        message.filter.CopyFrom(filter_message(settings.filter))
    return message


def filter_message(kept: FilterFields) -> ChangeFilter:
    """The filter as a message."""
    message = ChangeFilter(
        waybill_numbers=kept.waybill_numbers,
        facility_codes=kept.facility_codes,
        news_only=kept.news_only,
    )
    message.milestones.extend(kept.milestones)  # type: ignore[arg-type] # numbers
    message.flags.extend(kept.flags)  # type: ignore[arg-type] # of the enums
    return message


def _start_message(text: str) -> FeedStart:
    if text == NOW:
        return FeedStart(**{"from": START_FROM_NOW})  # type: ignore[arg-type] # a keyword of Python
    if text == EARLIEST:
        return FeedStart(**{"from": START_FROM_EARLIEST})  # type: ignore[arg-type]
    return FeedStart(resume_token=text)


def parked_message(parked: StoredChange, wire: bytes) -> bytes:
    """A serialised ParkedChange."""
    told = ParkedChange(
        attempts=parked.attempts, reason=parked.reason, parked_at_ms=parked.at_ms
    ).SerializeToString()
    return b"".join((_CHANGE, varint(len(wire)), wire, told))


# Deliveries out.


def _delivery(given: Given) -> bytes:
    wire, attempt = given
    tried = _FIRST_ATTEMPT if attempt == 1 else b"\x10" + varint(attempt)
    return b"".join((_CHANGE, varint(len(wire)), wire, tried))


def single_deliveries(given: Sequence[Given]) -> Iterator[bytes]:
    """A ConsumeChangesResponse for each delivery."""
    for each in given:
        delivery = _delivery(each)
        yield b"".join((_DELIVERY, varint(len(delivery)), delivery))


def delivery_runs(given: Sequence[Given]) -> Iterator[bytes]:
    """As few ConsumeChangesResponses as RUN_BYTES_MAX allows."""
    parts: list[bytes] = []
    size = 0
    for each in given:
        delivery = _delivery(each)
        if parts and size + len(delivery) > RUN_BYTES_MAX:
            yield _run(parts)
            parts, size = [], 0
        parts += (_CHANGE, varint(len(delivery)), delivery)  # deliveries is field 1, too
        size += len(delivery)
    if parts:
        yield _run(parts)


def _run(parts: list[bytes]) -> bytes:
    run = b"".join(parts)
    return b"".join((_RUN, varint(len(run)), run))


# Refusals.


def not_found(name: str) -> CallError:
    """There is no such subscription, or there is none any more."""
    return CallError(
        grpc.StatusCode.NOT_FOUND,
        "SUBSCRIPTION_NOT_FOUND",
        f"there is no subscription {name}",
        {"name": name},
    )


def exists(name: str) -> CallError:
    """There is one with other settings."""
    return CallError(
        grpc.StatusCode.ALREADY_EXISTS,
        "SUBSCRIPTION_EXISTS",
        f"there is a subscription {name} with other settings; update or delete it",
        {"name": name},
    )


def of_an_endpoint(name: str, endpoint_id: str) -> CallError:
    """It is made and deleted with its endpoint, and hears what that says."""
    return CallError(
        grpc.StatusCode.FAILED_PRECONDITION,
        "SUBSCRIPTION_OF_ENDPOINT",
        f"the subscription {name} is made, filtered and deleted with its endpoint",
        {"name": name, "endpoint_id": endpoint_id},
    )


def too_many(limit: int) -> CallError:
    """No more can be made."""
    return CallError(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "TOO_MANY_SUBSCRIPTIONS",
        f"at most {limit} subscriptions beside those of endpoints: delete one, or raise"
        " subscriptions_max",
        {"limit": str(limit)},
    )
