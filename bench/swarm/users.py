"""Who does what: scanners, front ends, subscribers.

Each user takes its turns by an absolute schedule. Weights say how many of each there are among the
users of a run; rates are those of one user. Nothing here may import gRPC before a user starts.
"""

import importlib
import time
from typing import Any

import gevent
from locust import User, task
from locust.exception import StopUser

from bench.swarm.run import Run, clock
from bench.swarm.schedule import Schedule
from bench.swarm.stream import Batch, ScannerStream
from trackd.v1.feed_pb2 import StartFrom, WatchChangesRequest, WatchChangesResponse
from trackd.v1.ingest_pb2 import (
    AppendEventsRequest,
    AppendEventsResponse,
    StreamEventsRequest,
    StreamEventsResponse,
)
from trackd.v1.tracking_pb2 import (
    BatchGetStatusRequest,
    BatchGetStatusResponse,
    GetStatusRequest,
    GetStatusResponse,
    GetTimelineRequest,
    GetTimelineResponse,
)

APPEND_EVENTS = "/trackd.v1.IngestService/AppendEvents"
GET_STATUS = "/trackd.v1.TrackingService/GetStatus"
BATCH_GET_STATUS = "/trackd.v1.TrackingService/BatchGetStatus"
GET_TIMELINE = "/trackd.v1.TrackingService/GetTimeline"
WATCH_CHANGES = "/trackd.v1.FeedService/WatchChanges"
_CUT_PAUSE_S = 0.01
_RECONNECT_PAUSE_S = 0.2
_BATCH_WAYBILLS = 100


class PacedUser(User):
    """A user with a schedule: waits for its turn, takes it, never leaves one out."""

    abstract = True
    turns_per_s = 1.0

    def on_start(self) -> None:
        """Connects, and begins its schedule."""
        self.run_of: Run = self.environment.trackd_run
        # gRPC must not be loaded before locust has forked its processes.
        self.grpc: Any = importlib.import_module("bench.swarm.connection")
        self.open()
        self._schedule = Schedule(
            began_at=clock(), per_s=self.turns_per_s, phase=self.run_of.random.random()
        )

    def open(self) -> None:
        """Connects."""

    def turn(self, due_at: float) -> None:
        """What is done each time."""

    def connection(self, name: str) -> Any:
        """A new connection; the user ends where there is none to be had."""
        try:
            return self.grpc.Connection(self.run_of.plan.address)
        except self.grpc.CallFailed as error:
            self.run_of.failed(name, error.code, due_at=clock())
            raise StopUser from error

    @task
    def take_turn(self) -> None:
        """Waits until the next turn is due and takes it."""
        due_at = self._schedule.take()
        gevent.sleep(max(0.0, due_at - clock()))
        self.turn(due_at)


class StreamScanner(PacedUser):
    """A hand-held's dock: a stream, and the next batch only after the answer to the last one."""

    weight = 3
    turns_per_s = 4.0
    batch_events = 50
    window = 1
    name = "StreamEvents, one at a time"

    def open(self) -> None:
        """Opens its stream."""
        self._was_cut = False
        self._batches = 0
        self._stream = ScannerStream(
            window=self.window, clock=clock, on_answer=self._answered, on_break=self._broken
        )
        self._stream.connect(self.connection(self.name))

    def turn(self, due_at: float) -> None:
        """A batch; into the spool while there is no network."""
        run = self.run_of
        self._batches += 1
        request = StreamEventsRequest(
            batch_id=str(self._batches), events=run.take(self.batch_events)
        )
        batch = Batch(request.SerializeToString(), self.batch_events, due_at)
        run.recordings.offer(due_at, self.batch_events)
        if run.is_cut:
            self._stream.disconnect()
            self._stream.keep(batch)
            return
        if not self._stream.connected:
            self._reconnect()
        self._stream.put(batch)

    def on_stop(self) -> None:
        """Waits for the last answers."""
        self._stream.finish()

    def _reconnect(self) -> None:
        """Where that fails, the next turn tries again."""
        try:
            self._stream.connect(self.grpc.Connection(self.run_of.plan.address))
        except self.grpc.CallFailed as error:
            self.run_of.failed(self.name, error.code, due_at=clock())
            gevent.sleep(_RECONNECT_PAUSE_S)

    def _answered(self, batch: Batch, answer: StreamEventsResponse) -> None:
        run = self.run_of
        if answer.rejections:
            run.failed(self.name, "rejected scans", due_at=batch.due_at)
        stored = answer.accepted + answer.duplicates
        run.answered(self.name, due_at=batch.due_at, sent_at=batch.sent_at, events=stored)

    def _broken(self, error: Exception) -> None:
        if not self.run_of.is_cut:
            why = getattr(error, "code", type(error).__name__)
            self.run_of.failed(self.name, why, due_at=clock())


class PipelinedScanner(StreamScanner):
    """A sorter: a stream with many batches in flight."""

    weight = 3
    turns_per_s = 10.0
    batch_events = 100
    window = 64
    name = "StreamEvents, pipelined"


class BatchScanner(PacedUser):
    """An outlet's computer: a call for each batch."""

    weight = 2
    turns_per_s = 2.0
    batch_events = 200
    name = "AppendEvents"

    def open(self) -> None:
        """Connects."""
        self._connection: Any = self.connection(self.name)

    def turn(self, due_at: float) -> None:
        """A batch; waits while there is no network, as it has no spool."""
        run = self.run_of
        request = AppendEventsRequest(events=run.take(self.batch_events))
        run.recordings.offer(due_at, self.batch_events)
        while run.is_cut:
            if self._connection:
                self._connection.close()
                self._connection = None
            gevent.sleep(_CUT_PAUSE_S)
        if not self._connection:
            self._connection = self.connection(self.name)
        sent_at = clock()
        try:
            data = self._connection.ask(APPEND_EVENTS, request.SerializeToString())
        except self.grpc.CallFailed as error:
            run.failed(self.name, error.code, due_at=due_at)
            return
        answer = AppendEventsResponse.FromString(data)
        if answer.rejections:
            run.failed(self.name, "rejected scans", due_at=due_at)
        stored = answer.accepted + answer.duplicates
        run.answered(self.name, due_at=due_at, sent_at=sent_at, events=stored)

    def on_stop(self) -> None:
        """Closes its connection."""
        if self._connection:
            self._connection.close()


class FrontEnd(PacedUser):
    """A web site's back end: look-ups of one parcel, of many, timelines, and typing errors."""

    weight = 3
    turns_per_s = 20.0

    def open(self) -> None:
        """Connects."""
        self._connection: Any = self.connection("GetStatus")
        self._asks = (
            *((self._status, "GetStatus", GET_STATUS),) * 12,
            *((self._timeline, "GetTimeline", GET_TIMELINE),) * 4,
            *((self._batch, f"BatchGetStatus of {_BATCH_WAYBILLS}", BATCH_GET_STATUS),) * 2,
            *((self._miss, "GetStatus of nothing", GET_STATUS),) * 2,
        )

    def turn(self, due_at: float) -> None:
        """One look-up; the answer is checked."""
        run = self.run_of
        ask, name, method = self._asks[int(run.random.random() * len(self._asks))]
        request, is_right = ask()
        sent_at = clock()
        try:
            right = is_right(self._connection.ask(method, request.SerializeToString()))
        except self.grpc.CallFailed as error:
            if error.code != "NOT_FOUND" or name != "GetStatus of nothing":
                run.failed(name, error.code, due_at=due_at)
                return
            right = True
        if right:
            run.answered(name, due_at=due_at, sent_at=sent_at)
        else:
            run.failed(name, "wrong answer", due_at=due_at)

    def on_stop(self) -> None:
        """Closes its connection."""
        self._connection.close()

    def _status(self) -> Any:
        number = self.run_of.waybill()

        def is_right(data: bytes) -> bool:
            return GetStatusResponse.FromString(data).status.waybill_number == number

        return GetStatusRequest(waybill_number=number), is_right

    def _timeline(self) -> Any:
        number = self.run_of.waybill()

        def is_right(data: bytes) -> bool:
            answer = GetTimelineResponse.FromString(data)
            return bool(answer.events) and answer.status.waybill_number == number

        return GetTimelineRequest(waybill_number=number), is_right

    def _batch(self) -> Any:
        numbers = [self.run_of.waybill() for _ in range(_BATCH_WAYBILLS)]

        def is_right(data: bytes) -> bool:
            answer = BatchGetStatusResponse.FromString(data)
            told = {status.waybill_number for status in answer.statuses}
            return told == set(numbers)

        return BatchGetStatusRequest(waybill_numbers=numbers), is_right

    def _miss(self) -> Any:
        return GetStatusRequest(waybill_number=self.run_of.missing()), lambda _: False


class Subscriber(PacedUser):
    """Watches everything; its response time is how late news come, from when they were recorded.

    The server's clock and this one are compared, so over machines it is only as good as they agree.
    """

    # One in all: to hear everything is the dearest part of a user in Python.
    fixed_count = 1
    name = "WatchChanges, news"

    def open(self) -> None:
        """Begins with what comes from now on."""
        self._resume_token = ""
        self._connection: Any = self.connection(self.name)
        # Beside its turns, so that it can be stopped while nothing is told.
        self._listening = gevent.spawn(self._listen)

    def turn(self, due_at: float) -> None:
        """Sees that it still listens."""
        del due_at
        if self._listening.dead:
            if self._listening.value is False:
                raise StopUser
            self._listening = gevent.spawn(self._listen)

    def on_stop(self) -> None:
        """Stops listening, and closes its connection."""
        self._listening.kill()
        self._connection.close()

    def _listen(self) -> bool:
        """Hears what the server tells until it ends; whether there is any use in trying again."""
        request = WatchChangesRequest()
        if self._resume_token:
            request.start.resume_token = self._resume_token
        else:
            setattr(request.start, "from", StartFrom.START_FROM_NOW)
        try:
            for data in self._connection.watch(WATCH_CHANGES, request.SerializeToString()):
                self._heard(WatchChangesResponse.FromString(data))
        except self.grpc.CallFailed as error:
            self.run_of.failed(self.name, error.code, due_at=clock())
            return bool(error.code != "UNIMPLEMENTED")
        return True

    def _heard(self, answer: WatchChangesResponse) -> None:
        self._resume_token = answer.resume_token
        if answer.WhichOneof("kind") == "changes":
            # The oldest of a run, as its clock says, on the clock of this process.
            recorded_ms = min(change.recorded_at_ms for change in answer.changes.changes)
            due_at = clock() - max(0.0, time.time() - recorded_ms / 1e3)
            self.run_of.answered(self.name, due_at=due_at, sent_at=due_at)
