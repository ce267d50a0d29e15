"""The scenarios, one question a file, in the order in which a run asks them."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from bench.figures import Outcome
from bench.plan import Bench
from bench.scenarios import (
    bare,
    batch_reads,
    curve,
    disk,
    feed,
    half,
    ingest,
    long,
    recovery,
    singles,
    unary,
    webhooks,
)


@dataclass(frozen=True, slots=True)
class Scenario:
    """A question. `needs`: scenarios of the same run whose figures it compares with."""

    ask: str
    measure: Callable[[Bench], Awaitable[Outcome]]
    needs: tuple[str, ...] = ()


SCENARIOS = {
    "disk": Scenario("How long does the disk take to make a write durable?", disk.measure),
    "ingest": Scenario("How many new scans a second, and at what cost?", ingest.measure),
    "repeats": Scenario(
        "What does it cost when 5 % are repeats?", ingest.measure_repeats, ("ingest",)
    ),
    "bare": Scenario("What part of the bare engine's rate is left?", bare.measure, ("ingest",)),
    "unary": Scenario("What part of a do-nothing server's rate do reads keep?", unary.measure),
    "batch_reads": Scenario("How many waybills a second in batches?", batch_reads.measure),
    "half": Scenario(
        "How late are answers at half of the maximal load?", half.measure, ("disk", "ingest")
    ),
    "curve": Scenario(
        "How late are answers at which load, up to all that is taken?", curve.measure, ("ingest",)
    ),
    "singles": Scenario("How many scans a second one at a time?", singles.measure),
    "watch": Scenario("How late are news, and what do watchers cost?", feed.measure_watch),
    "catch_up": Scenario("How fast is the past told?", feed.measure_catch_up),
    "loss": Scenario("What does a watcher of everything take from ingest?", feed.measure_loss),
    "subscription": Scenario(
        "How many changes a second does a named subscription give out?", feed.measure_subscription
    ),
    "webhooks": Scenario("How many webhooks a second does one notifier deliver?", webhooks.measure),
    "recovery": Scenario("How soon does it serve again after kill -9?", recovery.measure),
    "long": Scenario("Does memory stay bounded, and what goes to disk?", long.measure),
}
