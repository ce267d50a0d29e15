"""Row 18 under load: parcels move on, endpoints misbehave, and the notifier is killed every 5 s."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from tests.conftest import Serve
from tests.harness.seeds import seeded
from tests.notify import receiver as receivers
from tests.notify.hostile import IMPATIENT, MISBEHAVING, flapping
from tests.notify.receiver import Heard, receiving
from tests.notify.stage import SERVER_FLAGS, NotifierProcess, Stage, scan_of, stage_of, waybills
from trackd.client.subscriptions import Subscriptions
from trackd.v1.vocabulary_pb2 import Milestone

JOURNEY = ("PICKED_UP", "OUT_FOR_DELIVERY", "DELIVERED")
KILLED_EVERY_S = 5.0
LOAD_S = 180.0
# An endpoint that hangs is done with 40 attempts a second, and needs three for most changes.
PARCELS_PER_S = 3.0
SETTLED_WITHIN_S = 300.0
# What fails for ever would be left alone by its breaker, and so would most of the load.
NEVER_AT_REST = ("--breaker-failures-max", "10000")


@pytest.fixture
async def stage(serve: Serve, tmp_path: Path) -> AsyncIterator[Stage]:
    """A server of the test's own."""
    server = await asyncio.to_thread(serve, *SERVER_FLAGS)
    async with stage_of(server, tmp_path) as made:
        yield made


async def drive(stage: Stage, parcels: Sequence[str]) -> None:
    """Every parcel goes its way, a step some seconds after the other; all of them in LOAD_S."""
    rng = seeded("a notifier is killed under load")
    steps = []
    for parcel in parcels:
        first_s = rng.uniform(0, LOAD_S - 15)
        steps += [(first_s + 5 * n + rng.uniform(0, 4), parcel, n) for n in range(len(JOURNEY))]
    clock = asyncio.get_running_loop().time
    began_s = clock()
    for at_s, parcel, step in sorted(steps):
        await asyncio.sleep(max(0.0, began_s + at_s - clock()))
        await stage.scan(scan_of(parcel, JOURNEY[step], step))


async def kill_again_and_again(notifier: NotifierProcess) -> None:
    """Until cancelled."""
    while True:
        await asyncio.sleep(KILLED_EVERY_S)
        await notifier.kill()
        await notifier.start()


def expect_in_order(path: str, heard: Sequence[Heard], parcels: Sequence[str]) -> None:
    """Of each parcel no older news after newer, repeats or not, and the last of all."""
    told: dict[str, list[str]] = defaultdict(list)
    ids: dict[str, set[str]] = defaultdict(set)
    for each in heard:
        data = each.document["data"]
        told[each.waybill].append(data["milestone"])
        ids[each.headers["webhook-id"]].add(data["position"])
    assert set(told) == set(parcels), path
    for parcel, milestones in told.items():
        assert milestones == sorted(milestones, key=JOURNEY.index), (path, parcel)
        assert milestones[-1] == JOURNEY[-1], (path, parcel)
    assert all(len(positions) == 1 for positions in ids.values()), "one id for each change"


async def expect_the_last_news_parked(
    stage: Stage, endpoint_id: str, parcels: Sequence[str]
) -> int:
    """How many changes of an endpoint were parked: the last of each parcel, at least."""
    async with Subscriptions(stage.server.grpc) as subscriptions:
        parked = [each async for each in subscriptions.parked(f"endpoint/{endpoint_id}")]
    last = [each for each in parked if each.change.milestone == Milestone.MILESTONE_DELIVERED]
    assert sorted(each.change.waybill_number for each in last) == sorted(parcels)
    superseded = (await stage.progress(endpoint_id)).superseded
    assert len(parked) + superseded == len(parcels) * len(JOURNEY), "parked, or overtaken"
    return len(parked)


@pytest.mark.torture
async def test_a_notifier_killed_every_five_seconds_under_load(stage: Stage) -> None:
    """Who behaves hears the last news of every parcel, in order, and nothing is parked; of who
    misbehaves the last news of every parcel is parked, and what was before it parked or superseded.
    """
    parcels = waybills(int(LOAD_S * PARCELS_PER_S))
    async with receiving() as receiver:
        receiver.behaviours |= MISBEHAVING | {
            "/flooding": receivers.flooding,
            "/flapping": flapping(2),
        }
        bad = {
            path: await stage.endpoint(receiver.url(path), backoff_ms=(20, 40), max_attempts=3)
            for path in MISBEHAVING
        }
        good = {
            path: await stage.endpoint(receiver.url(path), backoff_ms=(20, 40), max_attempts=50)
            for path in ("/good", "/flooding", "/flapping")
        }
        notifier = await stage.notifier(*IMPATIENT, *NEVER_AT_REST)
        killing = asyncio.create_task(kill_again_and_again(notifier))
        try:
            await drive(stage, parcels)
        finally:
            killing.cancel()
            await asyncio.gather(killing, return_exceptions=True)
        await notifier.kill()
        await notifier.start()
        try:
            await stage.settled([*bad.values(), *good.values()], timeout_s=SETTLED_WITHIN_S)
        except TimeoutError:
            for path, endpoint_id in (bad | good).items():
                print(path, str(await stage.progress(endpoint_id)).replace("\n", " "))
            raise
        for path, endpoint_id in good.items():
            expect_in_order(path, receiver.at(path), parcels)
            assert await stage.parked(endpoint_id) == set(), path
        for path, endpoint_id in bad.items():
            parked = await expect_the_last_news_parked(stage, endpoint_id, parcels)
            print(path, len(receiver.at(path)), "attempts heard,", parked, "parked")
        assert receiver.at("/elsewhere") == []
        print(notifier.runs, "runs of the notifier,", len(receiver.heard), "webhooks")
