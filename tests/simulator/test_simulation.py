"""Arrivals come in order, at the rates asked for, the same for the same seed."""

import subprocess
import sys
from collections import Counter, defaultdict
from itertools import islice, pairwise
from random import Random

import pytest

from tests.simulator.conftest import RATES, SEED
from trackd.domain.vocabulary import EventCode, Rejection
from trackd.simulator.imperfections import (
    OFFLINE_SPELL_MS,
    PERFECT,
    Arrival,
    Imperfections,
    Oddity,
    Uplink,
)
from trackd.simulator.network import DAY_MS, HOUR_MS
from trackd.simulator.scan import Scan
from trackd.simulator.simulation import Simulation
from trackd.simulator.stories import SAMPLE_START_MS
from trackd.simulator.wire import stream_requests

CHINA_MS = 8 * HOUR_MS
ORIGINALS = (Oddity.NONE, Oddity.LATE, Oddity.OVERTAKEN)


def originals(arrivals: list[Arrival]) -> list[Arrival]:
    return [arrival for arrival in arrivals if arrival.oddity in ORIGINALS]


def test_same_seed_sends_the_same_bytes() -> None:
    """Two simulations of one seed, and two runs of one simulation, send equal bytes."""

    def sent(simulation: Simulation) -> bytes:
        scans = (arrival.scan for arrival in simulation.arrivals())
        return b"".join(stream_requests(scans, batch_events=100))

    simulation = Simulation(SEED, SAMPLE_START_MS, 2_000, RATES, parcels=100)
    first = sent(simulation)
    assert first == sent(simulation)
    assert first == sent(Simulation(SEED, SAMPLE_START_MS, 2_000, RATES, parcels=100))
    assert first != sent(Simulation(SEED + 1, SAMPLE_START_MS, 2_000, RATES, parcels=100))


def test_same_seed_sends_the_same_bytes_in_every_process() -> None:
    """Nothing hangs on the order of a set or on a salted hash."""
    program = (
        "import hashlib\n"
        "from trackd.simulator.imperfections import Imperfections\n"
        "from trackd.simulator.simulation import Simulation\n"
        "from trackd.simulator.wire import stream_requests\n"
        "rates = Imperfections(conflicting=0.1, invalid=0.1)\n"
        f"days = Simulation({SEED}, {SAMPLE_START_MS}, 2_000, rates, parcels=100)\n"
        "scans = (arrival.scan for arrival in days.arrivals())\n"
        "sent = b''.join(stream_requests(scans, batch_events=100))\n"
        "print(hashlib.sha256(sent).hexdigest())\n"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": salt, "PATH": ""},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for salt in ("1", "2")
    }
    assert len(digests) == 1


def test_scans_arrive_in_order_and_never_before_they_happened(arrivals: list[Arrival]) -> None:
    """Arrival times ascend; a scan that may be stored arrives after it was made."""
    assert all(a.at_ms <= b.at_ms for a, b in pairwise(arrivals))
    assert all(
        arrival.scan.occurred_at_ms < arrival.at_ms
        for arrival in arrivals
        if arrival.oddity is not Oddity.INVALID
    )


def test_every_parcel_arrives_whole(arrivals: list[Arrival]) -> None:
    """Imperfections add arrivals and shift them, and take no scan away and change none."""
    perfect = Simulation(
        SEED, SAMPLE_START_MS, 1_250, PERFECT, parcels=2_500, cross_border_share=0.05
    )
    expected = {(a.scan.waybill_number, a.scan.event_id): a.scan for a in perfect.arrivals()}
    assert len({number for number, _ in expected}) == 2_500
    found = {(a.scan.waybill_number, a.scan.event_id): a.scan for a in originals(arrivals)}
    assert found == expected
    assert len(originals(arrivals)) == len(expected)


def test_without_imperfections_a_parcel_s_scans_arrive_in_order() -> None:
    """PERFECT means: seconds after they happen, in order, once."""
    last: dict[str, int] = defaultdict(int)
    for arrival in Simulation(SEED, SAMPLE_START_MS, 1_000, PERFECT, parcels=100).arrivals():
        assert arrival.oddity is Oddity.NONE
        assert 0 < arrival.at_ms - arrival.scan.occurred_at_ms < 5_000
        assert last[arrival.scan.waybill_number] < arrival.scan.occurred_at_ms
        last[arrival.scan.waybill_number] = arrival.scan.occurred_at_ms


def test_rates_come_out_near_the_parameters(arrivals: list[Arrival]) -> None:
    """Each imperfection has about the share of scans that was asked for."""
    count = Counter(arrival.oddity for arrival in arrivals)
    scans = sum(count[oddity] for oddity in ORIGINALS)
    assert scans > 40_000
    # The order has no device to be offline, the last scan none after it to be overtaken by.
    assert count[Oddity.LATE] / scans == pytest.approx(RATES.late, rel=0.15)
    assert count[Oddity.OVERTAKEN] / scans == pytest.approx(RATES.overtaken, rel=0.2)
    assert count[Oddity.REPEAT] / scans == pytest.approx(RATES.repeated, rel=0.1)
    assert count[Oddity.CONFLICT] / scans == pytest.approx(RATES.conflicting, rel=0.15)
    assert count[Oddity.INVALID] / scans == pytest.approx(RATES.invalid, rel=0.15)


def test_default_imperfections_send_nothing_that_must_be_rejected() -> None:
    """Conflicts and invalid events come only when asked for."""
    arrivals = islice(Simulation(SEED, SAMPLE_START_MS, 5_000).arrivals(), 10_000)
    count = Counter((arrival.oddity, arrival.rejection) for arrival in arrivals)
    assert {rejection for _, rejection in count} == {None}
    assert {oddity for oddity, _ in count} == {*ORIGINALS, Oddity.REPEAT}


def test_a_device_that_was_offline_sends_its_scans_together_in_order(
    arrivals: list[Arrival],
) -> None:
    """Late scans of one device and spell arrive at the spell's end, in the order they were made."""
    spells: dict[tuple[str, int], list[Arrival]] = defaultdict(list)
    for arrival in arrivals:
        if arrival.oddity is Oddity.LATE:
            spell = arrival.scan.occurred_at_ms // OFFLINE_SPELL_MS
            spells[arrival.scan.device_id, spell].append(arrival)
            assert 0 < arrival.at_ms - (spell + 1) * OFFLINE_SPELL_MS < 60_000
    device, spell = max(spells, key=lambda of: len(spells[of]))
    sent = [
        arrival.oddity
        for arrival in originals(arrivals)
        if arrival.scan.device_id == device
        and arrival.scan.occurred_at_ms // OFFLINE_SPELL_MS == spell
    ]
    assert len(sent) > 1
    assert set(sent) == {Oddity.LATE}


def test_a_device_s_backlog_keeps_its_order() -> None:
    """Scans made an hour apart by one offline device arrive in the order they were made."""
    uplink = Uplink(Imperfections(late=1, overtaken=0, repeated=0), Random(SEED))
    start_ms = SAMPLE_START_MS // OFFLINE_SPELL_MS * OFFLINE_SPELL_MS
    made = [start_ms + minute * 60_000 for minute in (0, 30, 60, 119)]
    for at_ms in made:
        uplink.send(Scan("id", "SF1", 30, at_ms, device_id="PDA"), None)
    ends = (start_ms + OFFLINE_SPELL_MS) // 60_000
    received = uplink.received_in(ends)
    assert [arrival.scan.occurred_at_ms for arrival in received] == made
    assert not uplink.under_way


def test_an_overtaken_scan_arrives_after_a_later_one(arrivals: list[Arrival]) -> None:
    """OVERTAKEN is what it says for all but those whose successor was itself held up."""
    newest: dict[str, int] = defaultdict(int)
    overtaken = behind = 0
    for arrival in originals(arrivals):
        scan = arrival.scan
        if arrival.oddity is Oddity.OVERTAKEN:
            overtaken += 1
            behind += newest[scan.waybill_number] > scan.occurred_at_ms
        newest[scan.waybill_number] = max(newest[scan.waybill_number], scan.occurred_at_ms)
    assert behind > 0.85 * overtaken > 0


def test_a_repeat_is_equal_and_a_conflict_differs_in_content_only(
    arrivals: list[Arrival],
) -> None:
    """Both come after the scan they belong to, and share its waybill and id."""
    first = {(a.scan.waybill_number, a.scan.event_id): a for a in originals(arrivals)}
    delays = []
    for arrival in arrivals:
        if arrival.oddity not in (Oddity.REPEAT, Oddity.CONFLICT):
            continue
        original = first[arrival.scan.waybill_number, arrival.scan.event_id]
        assert original.at_ms < arrival.at_ms
        assert (original.scan == arrival.scan) is (arrival.oddity is Oddity.REPEAT)
        delays.append(arrival.at_ms - original.at_ms)
    assert min(delays) < 60_000
    assert max(delays) > DAY_MS


def test_every_kind_of_rejection_is_there_to_be_tested(arrivals: list[Arrival]) -> None:
    """Poison of every kind is sent, each marked with what the server must say to it."""
    rejections = {arrival.rejection for arrival in arrivals if arrival.oddity is Oddity.INVALID}
    assert rejections == set(Rejection) - {Rejection.CONFLICT}
    assert all(
        (arrival.oddity in (Oddity.CONFLICT, Oddity.INVALID)) is (arrival.rejection is not None)
        for arrival in arrivals
    )


def test_the_day_has_an_evening_wave(arrivals: list[Arrival]) -> None:
    """Most parcels are picked up after 16 h, and the hub next door sorts them in the night."""
    times: dict[EventCode, dict[str, int]] = defaultdict(dict)
    for arrival in originals(arrivals):
        scan = arrival.scan
        hour = (scan.occurred_at_ms + CHINA_MS) % DAY_MS // HOUR_MS
        times[EventCode(scan.code)].setdefault(scan.waybill_number, hour)

    def share(code: EventCode, hours: set[int]) -> float:
        return sum(hour in hours for hour in times[code].values()) / len(times[code])

    assert share(EventCode.PICKED_UP, {16, 17, 18, 19, 20}) > 0.6
    assert share(EventCode.PICKED_UP, set(range(9))) == 0
    assert share(EventCode.SORTED, {19, 20, 21, 22, 23, 0, 1}) > 0.75
    assert share(EventCode.REGISTERED, {19, 20, 21, 22}) > 0.25


def test_a_simulation_without_an_end_makes_no_more_than_is_asked_for() -> None:
    """Arrivals of an endless simulation are made lazily; the waiting ones are few."""
    endless = Simulation(SEED, SAMPLE_START_MS, 3_000, PERFECT).arrivals()
    some = list(islice(endless, 30_000))
    days = (some[-1].at_ms - SAMPLE_START_MS) / DAY_MS
    assert days < 4
    assert len({arrival.scan.waybill_number for arrival in some}) == pytest.approx(
        3_000 * days, rel=0.15
    )


def test_orders_start_when_the_simulation_does() -> None:
    """A start in the middle of a minute is kept, and the daily number of orders comes out."""
    start_ms = SAMPLE_START_MS + 12 * HOUR_MS + 30_500
    orders = [
        arrival.scan.occurred_at_ms
        for arrival in Simulation(SEED, start_ms, 500, PERFECT, parcels=1_000).arrivals()
        if arrival.scan.code == EventCode.REGISTERED
    ]
    assert len(orders) == 1_000
    assert min(orders) >= start_ms
    assert max(orders) - start_ms == pytest.approx(2 * DAY_MS, rel=0.1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"late": -0.1},
        {"overtaken": 1.1},
        {"repeated": 0.5, "conflicting": 0.4, "invalid": 0.2},
    ],
)
def test_impossible_rates_are_refused(wrong: dict[str, float]) -> None:
    """A rate is a share: between 0 and 1, and those that add arrivals together at most 1."""
    with pytest.raises(ValueError, match="must be"):
        Imperfections(**wrong)


def test_a_simulation_without_parcels_is_refused() -> None:
    """No orders at all would be an endless wait for the first arrival."""
    with pytest.raises(ValueError, match="parcels_per_day"):
        Simulation(SEED, SAMPLE_START_MS, 0)
