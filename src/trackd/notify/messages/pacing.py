"""When a text may go to an endpoint: its quiet hours and its rate cap, together.

The times are handed in; what is remembered is which texts went when, for as long as they count.
"""

from dataclasses import dataclass
from zoneinfo import ZoneInfo

from trackd.notify.messages.news import Kind, News
from trackd.notify.messages.quiet_hours import QuietHours
from trackd.notify.messages.rate_cap import RateCap
from trackd.v1.notification_pb2 import Endpoint

# Quiet hours that a promised time fell into move it, and the new time may fall into others.
_ROUNDS_MAX = 4
_SWEEP_EVERY = 1_000


@dataclass(slots=True)
class _Capped:
    """An endpoint's cap, as it was set when it was made."""

    messages: int
    per_ms: int
    cap: RateCap


class Pacing:
    """Says "now", or how long to wait. Asked by one event loop."""

    def __init__(self, *, default_zone: str, urgent: frozenset[Kind]) -> None:
        """urgent: what quiet hours do not hold back. A cap holds everything back."""
        self._default_zone = default_zone
        self._urgent = urgent
        self._capped: dict[str, _Capped] = {}
        self._made = 0

    def wait_ms(self, endpoint: Endpoint, news: News, *, now_ms: int) -> int:
        """0: now, and `ended` follows. Else that long; asking earlier gives the same time."""
        quiet = None if news.kind in self._urgent else self._quiet_hours(endpoint)
        cap = self._cap(endpoint)
        at_ms = now_ms
        for _ in range(_ROUNDS_MAX):
            at_ms = _after_quiet(quiet, at_ms)
            if cap is None:
                break
            promised_ms = cap.time_for(news.waybill_number, now_ms=now_ms, not_before_ms=at_ms)
            if _after_quiet(quiet, promised_ms) == promised_ms:
                at_ms = promised_ms
                break
            at_ms = promised_ms
        return at_ms - now_ms

    def ended(self, endpoint: Endpoint, news: News, *, went: bool) -> None:
        """What became of a text that might go. One that did not go leaves its room to others."""
        cap = self._cap(endpoint)
        if cap is None:
            return
        if went:
            cap.took(news.waybill_number)
        else:
            cap.gave_back(news.waybill_number)

    def _quiet_hours(self, endpoint: Endpoint) -> QuietHours | None:
        if not endpoint.HasField("quiet_hours"):
            return None
        hours = endpoint.quiet_hours
        return QuietHours(
            from_minute=hours.from_minute,
            until_minute=hours.until_minute,
            zone=ZoneInfo(hours.time_zone or self._default_zone),
        )

    def _cap(self, endpoint: Endpoint) -> RateCap | None:
        if not endpoint.HasField("rate_cap"):
            self._capped.pop(endpoint.id, None)
            return None
        wanted = endpoint.rate_cap
        capped = self._capped.get(endpoint.id)
        if capped is None or (capped.messages, capped.per_ms) != (wanted.messages, wanted.per_ms):
            cap = RateCap(messages=wanted.messages, per_ms=wanted.per_ms)
            capped = self._capped[endpoint.id] = _Capped(wanted.messages, wanted.per_ms, cap)
            self._sweep()
        return capped.cap

    def _sweep(self) -> None:
        """Forgets caps that hold nothing: of endpoints that are gone, in the end."""
        self._made += 1
        if self._made % _SWEEP_EVERY == 0:
            idle = [id_ for id_, capped in self._capped.items() if capped.cap.idle]
            for id_ in idle:
                del self._capped[id_]


def _after_quiet(quiet: QuietHours | None, at_ms: int) -> int:
    end_ms = quiet.end_ms(at_ms) if quiet is not None else None
    return at_ms if end_ms is None else end_ms
