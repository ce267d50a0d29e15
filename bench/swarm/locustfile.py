"""What locust loads: the users, the shape that was asked for, and where the figures go.

    locust -f bench/swarm/locustfile.py --headless --host 127.0.0.1:50551 \
        --load-shape steady -u 24 --seconds 60 --figures figures.json

`make load` does this against a server of its own. gRPC is not imported here: with `--processes`
locust forks after it has read this file.
"""

import importlib
import json
import time
from pathlib import Path
from typing import Any

from locust import LoadTestShape, events
from locust.env import Environment
from locust.runners import WorkerRunner

from bench.swarm.run import Plan, Run, clock
from bench.swarm.scans import known_scans
from bench.swarm.shapes import SHAPES
from bench.swarm.stream import STREAM_EVENTS
from bench.swarm.users import (
    BatchScanner,
    FrontEnd,
    PipelinedScanner,
    StreamScanner,
    Subscriber,
)
from trackd.simulator.wire import stream_requests
from trackd.v1.ingest_pb2 import StreamEventsResponse

__all__ = [
    "BatchScanner",
    "ChosenShape",
    "FrontEnd",
    "PipelinedScanner",
    "StreamScanner",
    "Subscriber",
]

_FIGURES = "trackd"
_KNOWN_BATCH_EVENTS = 500
_STARTED_MS = time.time_ns() // 1_000_000


class ChosenShape(LoadTestShape):
    """The shape named on the command line, over the users and the time given there."""

    use_common_options = True
    _began_at: float | None = None

    def tick(self) -> tuple[int, float] | None:
        """How many users there are now; None when the time is over."""
        assert self.runner is not None
        options: Any = self.runner.environment.parsed_options
        elapsed_s = self._elapsed_s()
        if elapsed_s >= options.seconds:
            return None
        shape = SHAPES[options.load_shape]
        users = shape.users(elapsed_s / options.seconds, options.num_users or 1)
        run: Run = self.runner.environment.trackd_run  # type: ignore[attr-defined]
        run.recordings.users[int(elapsed_s)] = users
        return users, users

    def _elapsed_s(self) -> float:
        """Since there are users: until then processes get ready, which is no part of the load."""
        assert self.runner is not None
        if self._began_at is None and self.runner.user_count:
            self._began_at = clock()
        return 0.0 if self._began_at is None else clock() - self._began_at


@events.init_command_line_parser.add_listener
def add_arguments(parser: Any) -> None:
    """Our own words of the command line."""
    parser.add_argument("--load-shape", choices=sorted(SHAPES), default="steady")
    parser.add_argument("--figures", default="", help="file for the figures, as JSON")
    # Not locust's own --run-time, which a worker is not told.
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)


@events.init.add_listener
def prepare(environment: Environment, **_: Any) -> None:
    """Once in each process, after locust has forked."""
    options: Any = environment.parsed_options
    plan = Plan(
        address=environment.host or "",
        shape=SHAPES[options.load_shape],
        duration_s=options.seconds,
        seed=options.seed,
        now_ms=_STARTED_MS,
    )
    run = Run(plan, fire=environment.events.request.fire)
    environment.trackd_run = run  # type: ignore[attr-defined]
    local = environment.events
    local.test_start.add_listener(lambda environment, **_: _begin(run, environment.runner))
    # A worker's figures go with locust's own, and the master adds them up.
    local.report_to_master.add_listener(
        lambda client_id, data: data.update({_FIGURES: run.recordings.taken()})  # noqa: ARG005
    )
    local.worker_report.add_listener(
        lambda client_id, data: run.recordings.add(data[_FIGURES])  # noqa: ARG005
    )
    local.quitting.add_listener(lambda environment, **_: _end(run, environment))


def _begin(run: Run, runner: Any) -> None:
    """Makes waybills known, once in the whole run; starts the clock."""
    if isinstance(runner, WorkerRunner):
        run.begin(process=runner.worker_index)
        return
    _make_known(run.plan)
    run.begin(process=0)


def _make_known(plan: Plan) -> None:
    """Sends the scans that front ends will ask for."""
    grpc: Any = importlib.import_module("bench.swarm.connection")
    connection = grpc.Connection(plan.address)
    scans = known_scans(seed=plan.seed, now_ms=plan.now_ms)
    batches = stream_requests(scans, batch_events=_KNOWN_BATCH_EVENTS)
    rejected = 0
    for data in connection.stream(STREAM_EVENTS, batches):
        rejected += len(StreamEventsResponse.FromString(data).rejections)
    connection.close()
    if rejected:
        raise RuntimeError(f"{rejected} of the scans that front ends ask for were rejected")


def _end(run: Run, environment: Environment) -> None:
    """Writes the figures of the whole run, in the process that has them all."""
    options: Any = environment.parsed_options
    if options.figures and not isinstance(environment.runner, WorkerRunner):
        told = run.recordings.taken()
        Path(options.figures).write_text(json.dumps(told), encoding="utf-8")
