"""The courier's network: facilities, the lanes between them, and what runs on the lanes.

A parcel goes outlet - hub - (hub -)* outlet; abroad it passes an office of exchange on either side.
Lanes have a timetable, so all parcels of one departure share a truck or flight, its number, its
delay. A network never changes once built: the same seed and cities give the same network. Nothing
here knows about parcels, scans, or what time it is.
"""

from bisect import bisect, bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import accumulate, pairwise, product
from math import asin, cos, radians, sin, sqrt
from random import Random
from typing import Final

from trackd.simulator.places import ABROAD, CITIES, City

MINUTE_MS: Final = 60_000
HOUR_MS: Final = 60 * MINUTE_MS
DAY_MS: Final = 24 * HOUR_MS

LANES_IN_A_ROUTE_MAX: Final = 3
_STOP_MS = 5 * HOUR_MS  # what a further hub costs: unloading, sorting, waiting for the next truck
_NEAREST_CITIES, _NEAREST_TRUNKS = 3, 2
_AIR_KM_MIN = 1_500
_KNUTH = 2_654_435_761  # multiplicative hash: spreads consecutive departures over 32 bits

# Minutes of the local day. Trunks leave at night, when the day's parcels are sorted.
_FROM_OUTLET = (13 * 60, 17 * 60 + 30, 19 * 60 + 15, 20 * 60 + 45, 22 * 60 + 15)
_TO_OUTLET = (5 * 60 + 30, 11 * 60 + 30, 15 * 60)
_TRUNK = (30, 3 * 60, 6 * 60, 13 * 60, 19 * 60 + 30, 21 * 60, 22 * 60 + 30)
_AIR = (1 * 60 + 30, 4 * 60, 15 * 60)
_ABROAD = (2 * 60, 16 * 60)


class Kind(Enum):
    """What a facility is."""

    OUTLET = "outlet"
    HUB = "hub"
    EXCHANGE = "office of exchange"


_NAMES: Final = {Kind.OUTLET: "营业点", Kind.HUB: "转运中心", Kind.EXCHANGE: "国际交换局"}


@dataclass(frozen=True, slots=True, eq=False)
class Facility:
    """A place where parcels are scanned. Operator n carries device n.

    lockers, stations, counter: codes of where an outlet leaves parcels to be collected.
    """

    code: str
    name: str
    kind: Kind
    city: str
    latitude: float
    longitude: float
    utc_offset_ms: int
    abroad: bool
    devices: tuple[str, ...]
    operators: tuple[str, ...]
    lockers: tuple[str, ...] = ()
    stations: tuple[str, ...] = ()
    counter: str = ""


@dataclass(frozen=True, slots=True)
class Haul:
    """One departure of a lane's truck or flight."""

    number: str
    depart_ms: int
    arrive_ms: int


@dataclass(frozen=True, slots=True, eq=False)
class Lane:
    """A timetabled link. departures_ms: times of the origin's local day, ascending."""

    origin: Facility
    destination: Facility
    km: float
    run_ms: int
    departures_ms: tuple[int, ...]
    prefix: str
    salt: int

    def next_haul(self, ready_ms: int) -> Haul:
        """The first departure scheduled at `ready_ms` or later; all who ask get the same."""
        offset_ms = self.origin.utc_offset_ms
        day, of_day_ms = divmod(ready_ms + offset_ms, DAY_MS)
        slot = bisect_left(self.departures_ms, of_day_ms)
        if slot == len(self.departures_ms):
            day, slot = day + 1, 0
        # Luck belongs to the departure, not to the parcel: no draw from a generator.
        luck = ((day * 31 + slot + self.salt) * _KNUTH & 0xFFFF_FFFF) / 0xFFFF_FFFF
        depart_ms = day * DAY_MS + self.departures_ms[slot] - offset_ms
        depart_ms += int(luck * luck * 40 * MINUTE_MS)
        run_ms = int(self.run_ms * (0.95 + 0.2 * luck**3))
        return Haul(f"{self.prefix}{day % 10_000:04d}{slot:02d}", depart_ms, depart_ms + run_ms)


def kilometres(origin: Facility | City, destination: Facility | City) -> float:
    """Great-circle distance (haversine)."""
    phi, theta = radians(origin.latitude), radians(destination.latitude)
    across = radians(destination.longitude - origin.longitude)
    haversine = sin((theta - phi) / 2) ** 2 + cos(phi) * cos(theta) * sin(across / 2) ** 2
    return 12_742 * asin(sqrt(haversine))


@dataclass(frozen=True, slots=True)
class Network:
    """Hubs by city code, their outlets, the offices of exchange, and the lanes between them all."""

    hubs: dict[str, Facility]
    outlets: dict[str, tuple[Facility, ...]]
    exchanges: dict[str, Facility]
    lanes: dict[tuple[str, str], Lane]
    domestic: tuple[str, ...]
    abroad: tuple[str, ...]
    _volumes: tuple[float, ...]
    _volumes_abroad: tuple[float, ...]
    _trunks: tuple[str, ...]
    # Filled as routes are asked for; never another answer for the same two cities.
    _routes: dict[tuple[str, str], tuple[Lane, ...]] = field(default_factory=dict)

    @staticmethod
    def build(
        seed: int, cities: Sequence[City] = CITIES, abroad: Sequence[City] = ABROAD
    ) -> "Network":
        """The network of these cities; needs at least two of its own country, and one abroad."""
        return _Builder(seed, cities, abroad).network()

    def outlet(self, rng: Random) -> Facility:
        """An outlet of the courier's own country, as often as its city's volume says."""
        return self._outlet_of(self.domestic, self._volumes, rng)

    def outlet_abroad(self, rng: Random) -> Facility:
        """A delivery office abroad."""
        return self._outlet_of(self.abroad, self._volumes_abroad, rng)

    def _outlet_of(
        self, cities: tuple[str, ...], volumes: tuple[float, ...], rng: Random
    ) -> Facility:
        city = cities[bisect(volumes, rng.random() * volumes[-1])]
        outlets = self.outlets[city]
        return outlets[int(rng.random() * len(outlets))]

    def way(self, origin: Facility, destination: Facility) -> tuple[Lane, ...]:
        """The lanes from one outlet to another, by way of at least one hub."""
        first = self.hubs[origin.city]
        if destination.city in self.hubs:
            route = self.route(origin.city, destination.city)
            last = self.hubs[destination.city]
            end: tuple[Lane, ...] = (self.lanes[last.code, destination.code],)
        else:
            gateway = min(
                (city for city in self.exchanges if city in self.hubs),
                key=lambda city: (
                    len(self.route(origin.city, city)),
                    kilometres(first, self.hubs[city]),
                ),
            )
            route = self.route(origin.city, gateway)
            out, inward = self.exchanges[gateway], self.exchanges[destination.city]
            stops = (self.hubs[gateway].code, out.code, inward.code, destination.code)
            end = tuple(self.lanes[pair] for pair in pairwise(stops))
        return (self.lanes[origin.code, first.code], *route, *end)

    def lane_astray(self, hub: Facility, rng: Random) -> Lane:
        """One of the shorter lanes from a hub to other hubs, for a parcel loaded by mistake."""
        lanes = [lane for city in self.domestic if (lane := self._lane(hub.city, city))]
        lanes.sort(key=lambda lane: lane.km)
        return lanes[int(rng.random() * min(3, len(lanes)))]

    def route(self, origin: str, destination: str) -> tuple[Lane, ...]:
        """The quickest lanes from one city's hub to another's: none to itself, at most three."""
        key = (origin, destination)
        if key not in self._routes:
            self._routes[key] = self._quickest(origin, destination)
        return self._routes[key]

    def _quickest(self, origin: str, destination: str) -> tuple[Lane, ...]:
        if origin == destination:
            return ()
        first = [city for city in self._trunks if self._lane(origin, city)]
        last = [city for city in self._trunks if self._lane(city, destination)]
        ways: list[tuple[str, ...]] = [(origin, destination)]
        ways += [(origin, city, destination) for city in first]
        ways += [(origin, a, b, destination) for a, b in product(first, last)]
        routes = []
        for way in ways:
            lanes = tuple(filter(None, (self._lane(a, b) for a, b in pairwise(way))))
            if len(lanes) == len(way) - 1:
                routes.append(lanes)
        return min(routes, key=lambda lanes: sum(lane.run_ms + _STOP_MS for lane in lanes))

    def _lane(self, origin: str, destination: str) -> Lane | None:
        """The lane between the hubs of two cities, if there is one."""
        return self.lanes.get((self.hubs[origin].code, self.hubs[destination].code))


class _Builder:
    """Draws what a network has; used once."""

    def __init__(self, seed: int, cities: Sequence[City], abroad: Sequence[City]) -> None:
        self._rng = Random(f"network {seed}")
        self._cities, self._abroad = cities, abroad
        by_volume = sorted(cities, key=lambda city: -city.volume)
        self._trunks = by_volume[: max(2, len(cities) // 4)]
        self._hubs: dict[str, Facility] = {}
        self._outlets: dict[str, tuple[Facility, ...]] = {}
        self._exchanges: dict[str, Facility] = {}
        self._lanes: dict[tuple[str, str], Lane] = {}

    def network(self) -> Network:
        for city in self._cities:
            self._hubs[city.code] = self._facility(city, Kind.HUB, "HUB", crew=24)
            self._outlets[city.code] = self._outlets_of(city, int(4 + 3 * city.volume))
        for city in (*self._trunks[:3], *self._abroad):
            self._exchanges[city.code] = self._facility(city, Kind.EXCHANGE, "EX", crew=12)
        for city in self._abroad:
            self._outlets[city.code] = self._outlets_of(city, 5)
        self._connect()
        return Network(
            hubs=self._hubs,
            outlets=self._outlets,
            exchanges=self._exchanges,
            lanes=self._lanes,
            domestic=tuple(city.code for city in self._cities),
            abroad=tuple(city.code for city in self._abroad),
            _volumes=tuple(accumulate(city.volume for city in self._cities)),
            _volumes_abroad=tuple(accumulate(city.volume for city in self._abroad)),
            _trunks=tuple(city.code for city in self._trunks),
        )

    def _facility(self, city: City, kind: Kind, suffix: str, *, crew: int) -> Facility:
        code = f"{city.code}-{suffix}"
        spread = 0.25 if kind is Kind.OUTLET else 0.08  # degrees around the city's centre
        ends = range(1, int(3 + 2 * city.volume)) if kind is Kind.OUTLET else ()
        return Facility(
            code=code,
            name=f"{city.name}{_NAMES[kind]}" + (suffix if kind is Kind.OUTLET else ""),
            kind=kind,
            city=city.code,
            latitude=round(city.latitude + spread * (2 * self._rng.random() - 1), 5),
            longitude=round(city.longitude + spread * (2 * self._rng.random() - 1), 5),
            utc_offset_ms=city.utc_hours * HOUR_MS,
            abroad=city in self._abroad,
            devices=tuple(f"PDA-{code}-{n:02d}" for n in range(1, crew + 1)),
            operators=tuple(f"{city.code}{self._rng.randrange(10**6):06d}" for _ in range(crew)),
            lockers=tuple(f"{code}-L{n:02d}" for n in ends),
            stations=tuple(f"{code}-S{n:02d}" for n in ends),
            counter=code if kind is Kind.OUTLET else "",
        )

    def _outlets_of(self, city: City, count: int) -> tuple[Facility, ...]:
        return tuple(
            self._facility(city, Kind.OUTLET, f"{n:03d}", crew=8) for n in range(1, count + 1)
        )

    def _connect(self) -> None:
        trunks = {city.code for city in self._trunks}
        for city in self._cities:
            others = sorted(
                (c for c in self._cities if c is not city), key=lambda c: kilometres(city, c)
            )
            near = [c.code for c in others[:_NEAREST_CITIES]]
            near += [c.code for c in others if c.code in trunks][:_NEAREST_TRUNKS]
            near += trunks - {city.code} if city.code in trunks else ()
            for other in sorted(set(near)):
                for pair in ((city.code, other), (other, city.code)):
                    self._link(self._hubs[pair[0]], self._hubs[pair[1]], _TRUNK)
            for outlet in self._outlets[city.code]:
                self._link(outlet, self._hubs[city.code], _FROM_OUTLET)
                self._link(self._hubs[city.code], outlet, _TO_OUTLET)
        inward = [self._exchanges[city.code] for city in self._abroad]
        for gateway in self._trunks[:3]:
            exchange = self._exchanges[gateway.code]
            self._link(self._hubs[gateway.code], exchange, _TRUNK)
            for office in inward:
                self._link(exchange, office, _ABROAD)
        for office in inward:
            for outlet in self._outlets[office.city]:
                self._link(office, outlet, _TO_OUTLET)

    def _link(self, origin: Facility, destination: Facility, timetable: tuple[int, ...]) -> None:
        key = (origin.code, destination.code)
        if key in self._lanes:
            return
        km = kilometres(origin, destination)
        flies = km > _AIR_KM_MIN
        if flies and timetable is _TRUNK:
            timetable = _AIR
        hours = 5 + km / 750 if flies else 0.5 + 1.3 * km / 68
        shift = self._rng.randrange(20)  # minutes: no two lanes leave on the same minute
        self._lanes[key] = Lane(
            origin=origin,
            destination=destination,
            km=round(km, 1),
            run_ms=int(hours * HOUR_MS),
            departures_ms=tuple((minute + shift) * MINUTE_MS for minute in timetable),
            prefix=f"{'F' if flies else 'T'}-{origin.code}-{destination.code}-",
            salt=self._rng.getrandbits(30),
        )
