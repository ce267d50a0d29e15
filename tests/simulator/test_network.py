"""The network is whole: every parcel has a way, and trucks keep their timetable."""

import itertools
from random import Random

import pytest

from tests.simulator.conftest import SEED
from trackd.simulator.network import DAY_MS, LANES_IN_A_ROUTE_MAX, Kind, Network, kilometres
from trackd.simulator.places import ABROAD, CITIES
from trackd.simulator.stories import SAMPLE_START_MS


def test_same_seed_builds_the_same_network() -> None:
    """Equal seeds give networks that cannot be told apart, other seeds another one."""

    def described(seed: int) -> str:
        built = Network.build(seed)
        hauls = [lane.next_haul(SAMPLE_START_MS) for lane in built.lanes.values()]
        return repr((built.hubs, built.outlets, built.exchanges, hauls))

    assert described(SEED) == described(SEED) != described(SEED + 1)


def test_distances_are_those_of_the_earth() -> None:
    """Shanghai to Beijing is 1,067 km as the crow flies, give or take where a city's centre is."""
    cities = {city.code: city for city in CITIES}
    assert kilometres(cities["SHA"], cities["PEK"]) == pytest.approx(1_067, abs=10)
    assert kilometres(cities["SHA"], cities["SHA"]) == 0


def test_every_hub_reaches_every_other(network: Network) -> None:
    """Routes join hub to hub without gaps, in at most three lanes, and none leads home again."""
    for origin, destination in itertools.product(network.domestic, repeat=2):
        route = network.route(origin, destination)
        stops = [origin, *(lane.destination.city for lane in route)]
        assert [lane.origin.city for lane in route] == stops[:-1]
        assert stops[-1] == destination
        assert len(stops) == len(set(stops))
        assert len(route) <= LANES_IN_A_ROUTE_MAX


def test_ways_lead_from_outlet_to_outlet(network: Network) -> None:
    """A way is unbroken, passes a hub, and on the way abroad an office of exchange on each side."""
    rng = Random(SEED)
    for _ in range(300):
        origin, at_home, abroad = (
            network.outlet(rng),
            network.outlet(rng),
            network.outlet_abroad(rng),
        )
        for destination, exchanges in ((at_home, 0), (abroad, 2)):
            way = network.way(origin, destination)
            assert way[0].origin is origin
            assert way[-1].destination is destination
            assert all(a.destination is b.origin for a, b in itertools.pairwise(way))
            between = [lane.destination for lane in way[:-1]]
            assert between[0].kind is Kind.HUB
            assert sum(stop.kind is Kind.EXCHANGE for stop in between) == exchanges


def test_parcels_of_one_departure_share_the_haul(network: Network) -> None:
    """Whoever is ready for the same departure gets the same truck, and later ones a later truck."""
    rng = Random(SEED)
    for lane in rng.sample(list(network.lanes.values()), 50):
        moments = sorted(SAMPLE_START_MS + rng.randrange(3 * DAY_MS) for _ in range(100))
        hauls = [lane.next_haul(moment) for moment in moments]
        by_number = {haul.number: haul for haul in hauls}
        assert all(by_number[haul.number] == haul for haul in hauls)
        assert len(by_number) <= 4 * len(lane.departures_ms)
        departures = [haul.depart_ms for haul in hauls]
        assert departures == sorted(departures)
        for moment, haul in zip(moments, hauls, strict=True):
            assert moment <= haul.depart_ms < haul.arrive_ms
            assert haul.depart_ms - moment < 2 * DAY_MS


def test_small_networks_work_too() -> None:
    """Two cities and one abroad are enough."""
    small = Network.build(SEED, CITIES[:2], ABROAD[:1])
    rng = Random(SEED)
    for _ in range(20):
        assert small.way(small.outlet(rng), small.outlet(rng))
        assert small.way(small.outlet(rng), small.outlet_abroad(rng))
