"""The gRPC server of one process: which method goes to which servicer, with which bounds around it.

Every method takes and gives raw bytes, so that the hot ones decide themselves what to parse.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from trackd.domain.validation import BATCH_EVENTS_MAX
from trackd.v1 import admin_pb2, feed_pb2, ingest_pb2, notification_pb2, tracking_pb2
from trackd.wire.access import ChangeFeed
from trackd.wire.admin import AdminService
from trackd.wire.calls import Calls, Context, Limit
from trackd.wire.ingest import IngestService
from trackd.wire.led_calls import CONSUME, LedCalls
from trackd.wire.methods import Methods
from trackd.wire.peer_messages import SERVICE as PEER_SERVICE
from trackd.wire.peers import PEER_CALLS_MAX, PeerService
from trackd.wire.share_work import ShareService
from trackd.wire.tracking import TrackingService

_INGEST = ingest_pb2.DESCRIPTOR.services_by_name["IngestService"].full_name
_TRACKING = tracking_pb2.DESCRIPTOR.services_by_name["TrackingService"].full_name
_FEED = feed_pb2.DESCRIPTOR.services_by_name["FeedService"].full_name
_ADMIN = admin_pb2.DESCRIPTOR.services_by_name["AdminService"].full_name
_NOTIFICATION = notification_pb2.DESCRIPTOR.services_by_name["NotificationService"].full_name
SERVICES = (_INGEST, _TRACKING, _FEED, _ADMIN, _NOTIFICATION)
_ADMIN_CALLS_MAX = 100
# What a worker adds to a batch before another one gets it: a waybill number's normal form to each
# event whose own was not.
_FORWARDED_EXTRA_BYTES = BATCH_EVENTS_MAX * 64


@dataclass(frozen=True, slots=True)
class DoorLimits:
    """The bounds of the door; see settings.py for what is beyond them."""

    message_bytes_max: int
    response_bytes_max: int
    unary_ingest_in_flight_max: int
    reads_in_flight_max: int
    streams_max: int
    watches_max: int
    consumers_max: int
    # Of callers, over all of which it listens to.
    connections_max: int
    # Whether other processes listen on the same port, and send what they were sent.
    among_workers: bool = False

    @property
    def pending_calls_max(self) -> int:
        """How many calls may wait to be taken: as many as could be at work."""
        streams = self.streams_max + self.watches_max + self.consumers_max
        return self.unary_ingest_in_flight_max + self.reads_in_flight_max + streams


class Door:
    """The gRPC server, and its health."""

    def __init__(
        self,
        calls: Calls,
        ingest: IngestService,
        tracking: TrackingService,
        admin: AdminService,
        limits: DoorLimits,
        *,
        with_reflection: bool,
    ) -> None:
        self._limits = limits
        self._methods = Methods()
        self._server = grpc.aio.server(handlers=[self._methods], options=_options(limits))
        self._health = health.aio.HealthServicer()
        # What health was ever told of.
        self._names: set[str] = {"", *SERVICES}
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        appends = Limit("AppendEvents calls", limits.unary_ingest_in_flight_max)
        streams = Limit("ingest streams", limits.streams_max)
        reads = Limit("read calls", limits.reads_in_flight_max)
        admins = Limit("admin calls", _ADMIN_CALLS_MAX)
        self._add(calls, _INGEST, "AppendEvents", appends, ingest.append_events)
        self._add(calls, _INGEST, "StreamEvents", streams, ingest.stream_events, stream=True)
        now: Callable[[bytes], bytes | None] = tracking.status_at_once
        self._add(calls, _TRACKING, "GetStatus", reads, tracking.get_status, at_once=now)
        self._add(calls, _TRACKING, "BatchGetStatus", reads, tracking.batch_get_status)
        now = tracking.timeline_at_once
        self._add(calls, _TRACKING, "GetTimeline", reads, tracking.get_timeline, at_once=now)
        self._add(calls, _ADMIN, "GetTopology", admins, admin.get_topology)
        self._add(calls, _ADMIN, "GetStats", admins, admin.get_stats)
        if with_reflection:
            names = (*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, self._server)

    def _add(
        self,
        calls: Calls,
        service: str,
        method: str,
        limit: Limit,
        behaviour: Callable[[Any, Context], Awaitable[Any]],
        *,
        at_once: Callable[[Any], Any] | None = None,
        stream: bool = False,
        answers_stream: bool = False,
    ) -> None:
        kind: Any = grpc.unary_unary_rpc_method_handler
        if stream:
            kind = grpc.stream_stream_rpc_method_handler
        elif answers_stream:
            kind = grpc.unary_stream_rpc_method_handler
        handler: Any = kind(calls.around(f"{service}/{method}", limit, behaviour, at_once))
        self._methods.add(service, method, handler)

    def add_feed(self, calls: Calls, feed: ChangeFeed) -> None:
        """The methods of FeedService that need no subscription."""
        watches = Limit("watches", self._limits.watches_max)
        watch = feed.watch_changes
        self._add(calls, _FEED, "WatchChanges", watches, watch, answers_stream=True)

    def add_led(self, calls: Calls, led: LedCalls) -> None:
        """The methods about named subscriptions and endpoints."""
        limit = Limit("calls about subscriptions", _ADMIN_CALLS_MAX)
        for method, behaviour in led.subscriptions.items():
            self._add(calls, _FEED, method, limit, behaviour)
        consumers = Limit("consumers", self._limits.consumers_max)
        self._add(calls, _FEED, CONSUME, consumers, led.consume, stream=True)
        limit = Limit("calls about endpoints", _ADMIN_CALLS_MAX)
        # They wait, each of a notifier.
        waits = Limit("notifiers", _ADMIN_CALLS_MAX)
        for method, behaviour in led.notifications.items():
            bound = waits if method == "ListTargets" else limit
            self._add(calls, _NOTIFICATION, method, bound, behaviour)

    def add_peers(
        self,
        calls: Calls,
        peers: PeerService,
        ingest: IngestService,
        admin: AdminService,
        feed: ChangeFeed,
    ) -> None:
        """Answers other workers, too: all of these are of this one's own partitions."""
        limit = Limit("calls of other workers", PEER_CALLS_MAX)
        for method, behaviour in (
            ("GetStats", admin.get_stats),
            ("ReadStatuses", peers.read_statuses),
            ("ReadTimeline", peers.read_timeline),
            ("Reached", peers.reached),
            ("GetLogBounds", peers.get_log_bounds),
        ):
            self._add(calls, PEER_SERVICE, method, limit, peers.for_peers(behaviour))
        watch = peers.for_peers(feed.watch_changes)
        self._add(calls, PEER_SERVICE, "WatchChanges", limit, watch, answers_stream=True)
        stream = peers.for_peers(ingest.stream_events)
        self._add(calls, PEER_SERVICE, "StreamEvents", limit, stream, stream=True)

    def add_shares(self, calls: Calls, peers: PeerService, shares: ShareService) -> None:
        """Answers the worker that leads the subscriptions, where that is another one."""
        limit = Limit("calls about shares", PEER_CALLS_MAX)
        forget = peers.for_peers(shares.forget_shares)
        self._add(calls, PEER_SERVICE, "ForgetShares", limit, forget)
        work = peers.for_peers(shares.work_shares)
        self._add(calls, PEER_SERVICE, "WorkShares", limit, work, stream=True)

    def add_led_for_peers(self, calls: Calls, peers: PeerService, led: LedCalls) -> None:
        """Answers what other workers hand on, where this one leads."""
        limit = Limit("calls that were handed on", PEER_CALLS_MAX)
        for method, behaviour in [*led.subscriptions.items(), *led.notifications.items()]:
            self._add(calls, PEER_SERVICE, method, limit, peers.for_peers(behaviour))
        consume = peers.for_peers(led.consume)
        self._add(calls, PEER_SERVICE, CONSUME, limit, consume, stream=True)

    async def open(self, *addresses: str) -> int:
        """Listens; the port of the last address. Raises RuntimeError if an address is taken."""
        ports = [self._server.add_insecure_port(address) for address in addresses]
        await self._server.start()
        return ports[-1]

    async def set_serving(self, serving: bool) -> None:
        """What health says of every name that it knows."""
        await self.tell_health(dict.fromkeys(self._names, serving))

    async def tell_health(self, serving: Mapping[str, bool]) -> None:
        """What health says of each name; "" is the server as a whole."""
        statuses = health_pb2.HealthCheckResponse
        self._names |= serving.keys()
        for name, serves in serving.items():
            status = statuses.SERVING if serves else statuses.NOT_SERVING
            await self._health.set(name, status)

    async def close(self, grace_s: float, idle: Awaitable[None]) -> None:
        """Refuses new calls and gives running ones grace_s seconds, or until `idle` returns.

        What is not ours may run for ever: watches of health, reflection.
        """
        stopped = asyncio.ensure_future(self._server.stop(grace_s))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(idle, grace_s)
        await self._server.stop(None)
        await stopped


def health_of(serving: Sequence[bool], partition_count: int, *, taking: bool) -> dict[str, bool]:
    """What health says where several workers serve together.

    serving: by worker, whether it serves. "" is everything: every partition is served. A service's
    name says whether this address takes its calls, "partition-3" whether that partition is served.
    """
    partitions = [serving[number % len(serving)] for number in range(partition_count)]
    return {
        "": taking and all(serving),
        **dict.fromkeys(SERVICES, taking and any(serving)),
        **{f"partition-{number}": one for number, one in enumerate(partitions)},
    }


def _options(limits: DoorLimits) -> list[tuple[str, int]]:
    """docs/operations.md says what each does to a client."""
    extra_bytes = _FORWARDED_EXTRA_BYTES if limits.among_workers else 0
    return [
        ("grpc.max_receive_message_length", limits.message_bytes_max + extra_bytes),
        ("grpc.max_send_message_length", limits.response_bytes_max),
        ("grpc.max_metadata_size", 8 << 10),
        ("grpc.max_concurrent_streams", 128),
        # It counts calls that have ended and are not cleared away yet, and resets the streams of
        # clients that keep to the 128: half of 500 calls at once on one connection. What a client
        # may have open stays bounded by the 128, and what waits by the limits below.
        ("grpc.http.overload_protection", 0),
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.http2.min_ping_interval_without_data_ms", 20_000),
        ("grpc.http2.max_ping_strikes", 2),
        ("grpc.max_connection_age_ms", 3_600_000),
        ("grpc.max_connection_age_grace_ms", 30_000),
        ("grpc.server_handshake_timeout_ms", 5_000),
        ("grpc.so_reuseport", int(limits.among_workers)),
        # A connection takes an open file, and the store must always find another one.
        ("grpc.max_allowed_incoming_connections", limits.connections_max),
        # Beyond about 1,000 calls that wait to be taken gRPC's core cancels some at random; it is
        # ours to say who comes back later, with a reason and a delay.
        ("grpc.server.max_pending_requests", limits.pending_calls_max),
        ("grpc.server.max_pending_requests_hard_limit", 2 * limits.pending_calls_max),
    ]
