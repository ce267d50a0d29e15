"""What the simulator's tests share: one network, one big enough sample, one simulated week."""

import pytest

from trackd.simulator.imperfections import Arrival, Imperfections
from trackd.simulator.network import Network
from trackd.simulator.scan import Scan
from trackd.simulator.simulation import Simulation
from trackd.simulator.stories import SAMPLE_START_MS, sample_journeys

SEED = 20251110
RATES = Imperfections(late=0.05, overtaken=0.04, repeated=0.06, conflicting=0.02, invalid=0.03)


@pytest.fixture(scope="session")
def network() -> Network:
    """The network of SEED."""
    return Network.build(SEED)


@pytest.fixture(scope="session")
def journeys() -> list[list[Scan]]:
    """4,000 journeys."""
    return sample_journeys(SEED, 4_000)


@pytest.fixture(scope="session")
def arrivals() -> list[Arrival]:
    """All arrivals of 2,500 parcels of two days, with every imperfection."""
    days = Simulation(SEED, SAMPLE_START_MS, 1_250, RATES, parcels=2_500, cross_border_share=0.05)
    return list(days.arrivals())
