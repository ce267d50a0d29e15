"""What scanners send: the scans of a simulated courier network, in the order of their arrival.

Nothing here knows gRPC or locust.
"""

from collections.abc import Iterator
from itertools import count, islice
from typing import Final

from trackd.simulator.imperfections import PERFECT, Arrival
from trackd.simulator.scan import Scan
from trackd.simulator.simulation import Simulation
from trackd.simulator.wire import scan_event
from trackd.v1.event_pb2 import ScanEvent

_DAY_MS: Final = 86_400_000
# A journey takes two to four days; from a week back a network has parcels at every stage.
_DAYS: Final = 8
# About 80 MB of parcels under way in each process.
_PARCELS_PER_DAY: Final = 20_000
_NETWORKS_PER_PROCESS: Final = 1_000
KNOWN_PARCELS: Final = 500
MISSING_PREFIX: Final = "NONE"


def start_ms(now_ms: int) -> int:
    """Where the networks of a run begin; the same for all its processes."""
    return (now_ms // _DAY_MS - _DAYS) * _DAY_MS


class ScanSource:
    """Scans without end, for all scanners of one process.

    seed: of the run. process: from 0; no two processes of a run send the same parcels. One network
    after the other: when its clock has come to `now_ms`, the next begins.
    """

    def __init__(self, *, seed: int, process: int, now_ms: int) -> None:
        self._seed = seed * _NETWORKS_PER_PROCESS * 100 + process * _NETWORKS_PER_PROCESS + 1
        self._now_ms = now_ms
        self._scans = self._all()

    def take(self, events: int) -> list[ScanEvent]:
        """The next scans."""
        return [scan_event(scan) for scan in islice(self._scans, events)]

    def _all(self) -> Iterator[Scan]:
        for network in count():
            simulation = Simulation(self._seed + network, start_ms(self._now_ms), _PARCELS_PER_DAY)
            yield from (arrival.scan for arrival in until(simulation, self._now_ms))


def until(simulation: Simulation, now_ms: int) -> Iterator[Arrival]:
    """The arrivals up to a moment."""
    for arrival in simulation.arrivals():
        if arrival.at_ms > now_ms:
            return
        yield arrival


def known_scans(*, seed: int, now_ms: int, parcels: int = KNOWN_PARCELS) -> Iterator[Scan]:
    """The scans that are sent before a load begins, so that front ends have something to ask for.

    The same in every process that is given the same arguments.
    """
    simulation = Simulation(seed, start_ms(now_ms), parcels, PERFECT, parcels=parcels)
    return (arrival.scan for arrival in until(simulation, now_ms))


def known_waybills(*, seed: int, now_ms: int, parcels: int = KNOWN_PARCELS) -> list[str]:
    """The waybill numbers of `known_scans`, in the order of their first scan."""
    scans = known_scans(seed=seed, now_ms=now_ms, parcels=parcels)
    return list(dict.fromkeys(scan.waybill_number for scan in scans))


def missing_waybill(number: int) -> str:
    """A waybill number that no network issues."""
    return f"{MISSING_PREFIX}{number:010d}"
