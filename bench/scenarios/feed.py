"""What news cost: how late they are, how fast the past is told, what watchers take from ingest."""

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from statistics import median
from typing import Any

from grpc import aio

from bench.batches import BatchMaker
from bench.figures import Figure, Outcome
from bench.known import make_known
from bench.load import Load, WrongAnswer, send
from bench.plan import Bench
from bench.server import ServerProcess
from bench.subscribing import Told, subscribers
from trackd.v1.feed_pb2 import CreateSubscriptionRequest, StartFrom

_CREATE_SUBSCRIPTION = "/trackd.v1.FeedService/CreateSubscription"
_SUBSCRIPTION = "bench"
_CONSUMERS = 4
_TURNS = 3
_PATIENCE_S = 120.0
_IN_FLIGHT_MAX = 10_000
_LAST_NEWS_S = 1.0


async def measure_watch(bench: Bench) -> Outcome:
    """One rate of scans: with nobody watching, one who watches everything, many with filters.

    In turns, and the median of each: the store's own cost moves as it grows. What RocksDB does in
    the background is the scans', and left out.
    """
    scale = bench.scale
    watchers = ("--number", str(scale.watchers), "--filtered")
    alone_us: list[float] = []
    one_us: list[float] = []
    many_us: list[float] = []
    one_told: list[Told] = []
    many_told: list[Told] = []
    with bench.server("watch") as server:
        for turn in range(0, 3 * _TURNS, 3):
            alone_us.append((await _watched(bench, server, turn))[0])
            for us, heard, number, options in (
                (one_us, one_told, 1, ()),
                (many_us, many_told, 2, watchers),
            ):
                cost_us, told = await _watched(bench, server, turn + number, options)
                assert told
                us.append(cost_us)
                heard.append(told)
    added_one_us = median(one_us) - median(alone_us)
    added_many_us = median(many_us) - median(alone_us)
    scans = scale.watch_rate * scale.watch_seconds * _TURNS
    return Outcome(
        [
            Figure("from order to subscriber p99", _worst_ms(one_told, "p99"), "ms", most=50),
            Figure("from order to subscriber p50", _worst_ms(one_told, "p50"), "ms"),
            Figure("from order to subscriber max", _worst_ms(one_told, "max"), "ms"),
            Figure("changes told to one, by scans", sum(t.changes for t in one_told) / scans, "×"),
            Figure(
                f"{scale.watchers} filtered watchers, added CPU, ratio to one of everything",
                # A short run may see no difference.
                added_many_us / added_one_us if added_one_us > 0 else math.nan,
                "×",
                most=2,
            ),
            Figure("filtered watchers, p99", _worst_ms(many_told, "p99"), "ms"),
            Figure("scans meanwhile", scale.watch_rate, "events/s"),
            Figure("server CPU per event, nobody watching", median(alone_us), "µs"),
            Figure("added by one watcher of everything", added_one_us, "µs"),
            Figure(f"added by {scale.watchers} with filters", added_many_us, "µs"),
        ]
    )


def _worst_ms(told: Sequence[Told], percentile: str) -> float:
    """Of several turns."""
    return max(each.latency_ms[percentile] for each in told)


async def measure_catch_up(bench: Bench) -> Outcome:
    """Everything from the first change on, to one watcher, with no scans meanwhile."""
    scale = bench.scale
    with bench.server("catch_up") as server:
        load = Load(float("inf"), events=scale.catch_up_events)
        sent = await send(server.address, BatchMaker(bench.mix()), load)
        sent.check(repeated=0)
        before = server.usage().cpu_s
        async with subscribers(server.address, "--earliest") as watching:
            told = await watching.ended(seconds_max=_PATIENCE_S)
        cpu_s = server.usage().cpu_s - before
    if not told.changes:
        raise WrongAnswer(f"{sent.accepted} events were accepted and no change was told")
    return Outcome(
        [
            Figure("catch-up from EARLIEST", told.per_s, "changes/s", least=200_000),
            Figure("changes", told.changes, ""),
            Figure("server CPU per change", cpu_s / told.changes * 1e6, "µs"),
            Figure("watcher CPU per change", told.cpu_s / told.changes * 1e6, "µs"),
        ]
    )


async def measure_loss(bench: Bench) -> Outcome:
    """As many scans as are taken, with nobody watching and with one who watches everything."""
    scale, rates = bench.scale, []
    told: Told | None = None
    for watched in (False, True):
        with bench.server(f"loss-{watched}") as server:
            load, maker = Load(scale.loss_seconds), BatchMaker(bench.mix())
            if not watched:
                rates.append((await send(server.address, maker, load)).rate)
                continue
            async with subscribers(server.address) as watching:
                rates.append((await send(server.address, maker, load)).rate)
                told = await watching.stop()
    assert told
    alone, beside = rates
    return Outcome(
        [
            Figure("rate kept with one watcher of everything", beside / alone, "×", least=0.85),
            Figure("rate with nobody watching", alone, "events/s"),
            Figure("rate with one watcher", beside, "events/s"),
            Figure("changes told meanwhile", told.per_s, "changes/s"),
            Figure("from order to subscriber p99", told.latency_ms["p99"], "ms"),
        ]
    )


async def measure_subscription(bench: Bench) -> Outcome:
    """A named subscription over many waybills, worked off by a few consumers, in order."""
    scale = bench.scale
    mix = replace(bench.mix(), waybills=scale.subscription_waybills)
    with bench.server("subscription") as server:
        await _create(server.address)
        now_ms = time.time_ns() // 1_000_000
        known = await make_known(server.address, mix, waybills=mix.waybills, now_ms=now_ms)
        before = server.usage().cpu_s
        # Changes, not events: a few scans change nothing.
        wanted = known.accepted * 9 // 10
        options = ("--consume", _SUBSCRIPTION, "--number", str(_CONSUMERS))
        async with subscribers(server.address, *options, "--changes", str(wanted)) as consuming:
            told = await consuming.ended(seconds_max=_PATIENCE_S)
        cpu_s = server.usage().cpu_s - before
    return Outcome(
        [
            Figure(
                f"acknowledged by {_CONSUMERS} consumers", told.per_s, "changes/s", least=10_000
            ),
            Figure("changes, each in its waybill's order", told.changes, ""),
            Figure("waybills", scale.subscription_waybills, ""),
            Figure("server CPU per change", cpu_s / told.changes * 1e6, "µs"),
            Figure("consumer CPU per change", told.cpu_s / told.changes * 1e6, "µs"),
        ]
    )


async def _watched(
    bench: Bench, server: ServerProcess, turn: int, options: tuple[str, ...] | None = None
) -> tuple[float, Told | None]:
    """Scans at one rate; the server's CPU in µs for each, and what was heard meanwhile."""
    scale = bench.scale
    # A seed of its own: scans that repeat facility and milestone of the load before change nothing.
    maker = BatchMaker(replace(bench.mix(), seed=bench.seed + turn))
    load = Load(scale.watch_seconds, rate=scale.watch_rate)

    async def loaded() -> float:
        before = server.usage()
        sent = await send(server.address, maker, load)
        sent.check(repeated=0)
        after = server.usage()
        engine_s = after.engine_cpu_s - before.engine_cpu_s
        return (after.cpu_s - before.cpu_s - engine_s) / sent.answered * 1e6

    if options is None:
        return await loaded(), None
    async with subscribers(server.address, *options) as watching:
        cpu_us = await loaded()
        # For what is still on its way.
        await asyncio.sleep(_LAST_NEWS_S)
        return cpu_us, await watching.stop()


async def _create(address: str) -> None:
    request = CreateSubscriptionRequest()
    request.subscription.name = _SUBSCRIPTION
    request.subscription.max_in_flight = _IN_FLIGHT_MAX
    setattr(request.subscription.start, "from", StartFrom.START_FROM_EARLIEST)
    async with aio.insecure_channel(address) as channel:
        method: Any = channel.unary_unary(_CREATE_SUBSCRIPTION)
        await method(request.SerializeToString())
