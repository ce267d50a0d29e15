"""A courier's days: parcels ordered by the hour, and all their scans in the order of their arrival.

Lazy and bounded: memory holds the parcels under way (about 4 KB each) and the scans on their way to
the server, never a day of them. Nothing here knows what a scan says; `stories.py` does.
"""

from collections import defaultdict
from collections.abc import Iterator
from itertools import count
from random import Random
from typing import Final

from trackd.simulator.imperfections import Arrival, Imperfections, Uplink
from trackd.simulator.network import DAY_MS, HOUR_MS, MINUTE_MS, Network
from trackd.simulator.scan import Itinerary, occurred_at_ms, scan_of, scans_in
from trackd.simulator.stories import itinerary
from trackd.simulator.waybills import WaybillNumbers

# Orders by the hour of the day in China, in parts of 1,000: people shop in the evening.
_ORDERS: Final = (
    *(12, 8, 5, 4, 4, 6, 10, 18, 32, 50, 60, 58),
    *(46, 48, 56, 62, 64, 60, 52, 58, 76, 92, 78, 41),
)
_ORDERS_OFFSET_MS: Final = 8 * HOUR_MS
_MINUTES_PER_HOUR: Final = 60

# Parcels by the minute of their next scan, with its place in their itinerary.
Calendar = defaultdict[int, list[tuple[Itinerary, int]]]


class Simulation:
    """One courier from `start_ms` on, in milliseconds since the epoch; nothing is under way yet.

    parcels_per_day: orders, more in the evening than at night. parcels: how many in all; None goes
    on for ever. The same arguments give the same arrivals; the imperfections do not change what
    happens to the parcels. Raises ValueError when nobody ever orders anything.
    """

    def __init__(
        self,
        seed: int,
        start_ms: int,
        parcels_per_day: int,
        imperfections: Imperfections | None = None,
        *,
        parcels: int | None = None,
        cross_border_share: float = 0.03,
        network: Network | None = None,
    ) -> None:
        if parcels_per_day < 1:
            raise ValueError(f"parcels_per_day must be at least 1, not {parcels_per_day}")
        self.network = network or Network.build(seed)
        self._seed = seed
        self._start_ms = start_ms
        self._parcels_per_day = parcels_per_day
        self._parcels = parcels
        self._cross_border_share = cross_border_share
        self._imperfections = imperfections or Imperfections()

    def arrivals(self) -> Iterator[Arrival]:
        """Every arrival, earliest first; each call begins again."""
        uplink = Uplink(self._imperfections, Random(f"uplink {self._seed}"))
        orders = self._orders()
        # A calendar by the minute instead of a heap: 0.2 µs a scan and not 2. All of a minute is
        # scanned before any of it is received, as nothing arrives before it occurred.
        due: Calendar = defaultdict(list)
        more_orders = True
        for minute in count(self._start_ms // MINUTE_MS):
            if more_orders:
                ordered = next(orders, None)
                more_orders = ordered is not None
                due[minute] += ordered or ()
            elif not due and not uplink.under_way:
                return
            for plan, nth in due.pop(minute, ()):
                _scan_within(minute, plan, nth, due, uplink)
            yield from uplink.received_in(minute)

    def _orders(self) -> Iterator[list[tuple[Itinerary, int]]]:
        """The parcels ordered in each minute, none of their scans made."""
        rng = Random(f"parcels {self._seed}")
        numbers = WaybillNumbers(rng, cross_border_share=self._cross_border_share)
        left = self._parcels
        for minute in count(self._start_ms // MINUTE_MS):
            minute_ms = max(self._start_ms, minute * MINUTE_MS)
            hour = (minute_ms + _ORDERS_OFFSET_MS) % DAY_MS // HOUR_MS
            expected = self._parcels_per_day * _ORDERS[hour] / sum(_ORDERS) / _MINUTES_PER_HOUR
            orders = int(expected + rng.random())
            if left is not None:
                orders = min(orders, left)
                left -= orders
            yield [self._order(rng, numbers.issue(), minute_ms) for _ in range(orders)]
            if left == 0:
                return

    def _order(self, rng: Random, waybill: str, minute_ms: int) -> tuple[Itinerary, int]:
        """A parcel ordered in this minute, none of its scans made."""
        left_ms = MINUTE_MS - minute_ms % MINUTE_MS
        start_ms = minute_ms + int(rng.random() * left_ms)
        return itinerary(self.network, rng, waybill, start_ms), 0


def _scan_within(minute: int, plan: Itinerary, nth: int, due: Calendar, uplink: Uplink) -> None:
    """Makes a parcel's scans of one minute from the nth on; notes when its next one is due."""
    for later in range(nth + 1, scans_in(plan)):
        next_ms = occurred_at_ms(plan, later)
        uplink.send(scan_of(plan, later - 1), next_ms)
        if next_ms // MINUTE_MS != minute:
            due[next_ms // MINUTE_MS].append((plan, later))
            return
    uplink.send(scan_of(plan, scans_in(plan) - 1), None)
