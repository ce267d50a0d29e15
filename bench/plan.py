"""How large a run is, and what its scenarios share."""

import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from bench.batches import Mix, run_name
from bench.figures import Outcome
from bench.server import ServerProcess, trackd_server


@dataclass(frozen=True, slots=True)
class Scale:
    """Sizes and durations. A short run only shows that the load path works."""

    ingest_seconds: float = 60
    settle_seconds_max: float = 30
    waybills: int = 1_000_000
    bare_events: int = 4_000_000
    known_waybills: int = 300_000
    slice_seconds: float = 1.0
    slices: int = 12
    batch_reads_seconds: float = 10
    half_seconds: float = 30
    reads_per_s: int = 500
    curve_seconds: float = 8
    singles_seconds: float = 10
    recovery_events: int = 2_000_000
    long_events: int = 20_000_000
    long_waybills: int = 2_000_000
    flushes: int = 500
    watch_rate: float = 50_000
    watch_seconds: float = 5
    watchers: int = 200
    catch_up_events: int = 1_000_000
    loss_seconds: float = 10
    subscription_waybills: int = 100_000
    webhooks: int = 15_000


SHORT = Scale(
    ingest_seconds=2,
    settle_seconds_max=1,
    waybills=10_000,
    bare_events=50_000,
    known_waybills=5_000,
    slice_seconds=0.2,
    slices=3,
    batch_reads_seconds=1,
    half_seconds=2,
    reads_per_s=100,
    curve_seconds=0.5,
    singles_seconds=1,
    recovery_events=50_000,
    long_events=200_000,
    long_waybills=20_000,
    flushes=20,
    watch_rate=5_000,
    watch_seconds=0.4,
    watchers=20,
    catch_up_events=20_000,
    loss_seconds=1,
    subscription_waybills=3_000,
    webhooks=1_000,
)


@dataclass(frozen=True, slots=True)
class Bench:
    """One run. `outcomes`: what earlier scenarios of the same run found, by their names.

    server_options: of `trackd serve`, for every server.
    directory: where servers keep their data; the file system that is measured.
    """

    scale: Scale
    directory: Path
    seed: int
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    server_options: tuple[str, ...] = ()

    def server(self, name: str, *options: str) -> AbstractContextManager[ServerProcess]:
        """A server on an empty data directory of its own."""
        return trackd_server(self.directory / name, *self.server_options, *options)

    def mix(self, *, waybills: int | None = None, repeats: float = 0.0) -> Mix:
        """Batches of 200, with event ids that no other load has."""
        return Mix(
            waybills=waybills or self.scale.waybills,
            repeats=repeats,
            seed=self.seed,
            run=run_name(time.time_ns() // 1_000_000),
        )
