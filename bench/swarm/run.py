"""One process's part of a run: its clock, its data, its shape and what it measured.

Users reach all of it through `environment.trackd_run`; nothing here knows gRPC or locust's classes.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from bench.swarm.recordings import Recordings
from bench.swarm.scans import ScanSource, known_waybills, missing_waybill
from bench.swarm.shapes import Shape
from trackd.v1.event_pb2 import ScanEvent

clock: Final = time.perf_counter

# locust's request event: request_type, name, response_time, …
Fire = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is to be; the same in all its processes."""

    address: str
    shape: Shape
    duration_s: float
    seed: int
    now_ms: int


class Run:
    """fire tells locust, so that its report has what ours has."""

    def __init__(self, plan: Plan, fire: Fire) -> None:
        self.plan = plan
        self.recordings = Recordings()
        self.random = random.Random(plan.seed)
        self._fire = fire
        self._process = 0
        self._hot_scans = 0

    def begin(self, process: int) -> None:
        """Makes the data of this process (from 0), and starts the clock of the run."""
        seed, now_ms = self.plan.seed, self.plan.now_ms
        self._process = process
        self.random = random.Random(f"users {seed} {process}")
        self.scans = ScanSource(seed=seed, process=process, now_ms=now_ms)
        self.known = known_waybills(seed=seed, now_ms=now_ms)
        self.hot_waybill = self.known[0]
        self.recordings.began_at = clock()

    @property
    def is_cut(self) -> bool:
        """Whether scanners have no network now."""
        progress = (clock() - self.recordings.began_at) / self.plan.duration_s
        return self.plan.shape.is_cut(progress)

    def waybill(self) -> str:
        """A known waybill to ask for."""
        if self.random.random() < self.plan.shape.hot:
            return self.hot_waybill
        return self.known[int(self.random.random() * len(self.known))]

    def missing(self) -> str:
        """A waybill that is not there."""
        return missing_waybill(self.random.randrange(10**10))

    def take(self, events: int) -> list[ScanEvent]:
        """The next scans; in the hot shape now and then one of the hot waybill among them."""
        scans = self.scans.take(events)
        if self.random.random() < self.plan.shape.hot / 4:
            self._hot_scans += 1
            last = scans[-1]
            last.waybill_number = self.hot_waybill
            last.event_id = f"hot-{self._process}:{self.plan.now_ms}:{self._hot_scans}"
        return scans

    def answered(self, name: str, *, due_at: float, sent_at: float, events: int = 0) -> None:
        """An answer has come just now."""
        now = clock()
        self.recordings.answered(
            name, due_at=due_at, sent_at=sent_at, answered_at=now, events=events
        )
        self._tell(name, now - due_at, None)

    def failed(self, name: str, why: str, *, due_at: float) -> None:
        """No answer, or a wrong one. why: few different ones, as they are counted."""
        self.recordings.failed(name, why)
        self._tell(name, clock() - due_at, RuntimeError(why))

    def _tell(self, name: str, seconds: float, error: Exception | None) -> None:
        self._fire(
            request_type="gRPC",
            name=name,
            response_time=seconds * 1e3,
            response_length=0,
            exception=error,
            context={},
        )
