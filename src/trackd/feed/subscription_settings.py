"""What a named subscription was told to do, and the document that keeps it.

    document = JSON object: id, data_set_id, start (a position for each partition), and every field
               of SubscriptionSettings by its name

The document alone says that a subscription exists. Its id names its rows in every partition, so
that rows which outlive a deletion are never taken for those of a later one of the same name.
"""

from dataclasses import dataclass

import orjson

from trackd.feed.filters import Filter
from trackd.feed.lane import LaneRules

DOCUMENT_KIND = "subscription"


@dataclass(frozen=True, slots=True)
class FilterFields:
    """A filter as it was asked for, in the contract's terms; each field in order, without repeats.

    It is kept beside what it means so that it is told as it was asked.
    """

    waybill_numbers: tuple[str, ...] = ()
    milestones: tuple[int, ...] = ()
    flags: tuple[int, ...] = ()
    facility_codes: tuple[str, ...] = ()
    news_only: bool = False

    def made(self) -> Filter:
        """What it means. Raises UnusableFilter."""
        return Filter.of(
            waybill_numbers=self.waybill_numbers,
            milestones=self.milestones,
            flags=self.flags,
            facility_codes=self.facility_codes,
            news_only=self.news_only,
        )


@dataclass(frozen=True, slots=True)
class SubscriptionSettings:
    """The settings of a named subscription, the defaults filled in."""

    name: str
    filter: FilterFields
    ack_timeout_ms: int
    max_attempts: int
    max_in_flight: int
    retry_backoff_ms: tuple[int, ...]
    supersede: bool

    @property
    def rules(self) -> LaneRules:
        """What its lanes follow."""
        return LaneRules(
            self.ack_timeout_ms, self.max_attempts, self.retry_backoff_ms, self.supersede
        )


@dataclass(frozen=True, slots=True)
class SubscriptionDocument:
    """A subscription as it is kept. start: the position after which it began, by partition.

    start_text: where it was told to start, to recognise the same request.
    """

    id: bytes
    data_set_id: str
    start: tuple[int, ...]
    start_text: str
    created_at_ms: int
    settings: SubscriptionSettings

    def encoded(self) -> bytes:
        """Its bytes."""
        return orjson.dumps(
            {
                "id": self.id.hex(),
                "data_set_id": self.data_set_id,
                "start": self.start,
                "start_text": self.start_text,
                "created_at_ms": self.created_at_ms,
                "settings": self.settings,
            }
        )

    @classmethod
    def decoded(cls, document: bytes) -> "SubscriptionDocument":
        """The subscription in a document. Raises ValueError, KeyError, TypeError."""
        fields = orjson.loads(document)
        settings = fields["settings"]
        asked = settings.pop("filter")
        asked |= {name: tuple(value) for name, value in asked.items() if isinstance(value, list)}
        waits = tuple(settings.pop("retry_backoff_ms"))
        return cls(
            bytes.fromhex(fields["id"]),
            fields["data_set_id"],
            tuple(fields["start"]),
            fields["start_text"],
            fields["created_at_ms"],
            SubscriptionSettings(filter=FilterFields(**asked), retry_backoff_ms=waits, **settings),
        )
