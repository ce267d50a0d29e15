"""THE CLIENT: scanners with an offline spool, front ends, operators. The public names; nothing else
is.

A client of the gRPC contract in proto/: it never imports the server's rooms, and the store least of
all.

    async with Scanner("127.0.0.1:50551", spool=spool) as scanner:
        event = scan_event(event_id=spool.event_id(), waybill_number=…, code="PICKED_UP")
        await scanner.scan(event)

    async with FrontEnd("127.0.0.1:50551") as front_end:
        status = await front_end.get_status("SF1234567890")

    async with Subscriber("127.0.0.1:50551") as subscriber:
        async for heard in subscriber.watch():
            for change in heard.changes: …

SyncScanner, SyncFrontEnd, SyncSubscriber and SyncAdmin do the same without an event loop.
"""

from trackd.client.admin import Admin
from trackd.client.consumer import Consumer, ConsumerOptions
from trackd.client.errors import (
    DeadlineExceeded,
    InvalidRequest,
    NotPermitted,
    PositionExpired,
    PositionUnknown,
    ScansNotSent,
    ServerFault,
    ServerOverloaded,
    ServerUnavailable,
    SpoolBroken,
    SpoolError,
    SpoolFull,
    SpoolInUse,
    TrackdError,
    WaybillNotFound,
)
from trackd.client.events import RejectedScan, receipt, scan_event
from trackd.client.front_end import FrontEnd, Statuses
from trackd.client.health import Health, check_health
from trackd.client.options import BackoffOptions, FrontEndOptions, ScannerOptions, SpoolOptions
from trackd.client.scanner import Scanner
from trackd.client.spool import Spool
from trackd.client.spool_file import SpoolLevel
from trackd.client.subscriber import Heard, Subscriber, SubscriberOptions
from trackd.client.subscriptions import Subscriptions
from trackd.client.sync import SyncAdmin, SyncFrontEnd, SyncScanner, SyncSubscriber
from trackd.client.sync_subscriptions import SyncConsumer, SyncSubscriptions
from trackd.client.uplink import ScanCounts
from trackd.v1.event_pb2 import Receipt, ScanEvent, ShipmentStatus

__all__ = [
    "Admin",
    "BackoffOptions",
    "Consumer",
    "ConsumerOptions",
    "DeadlineExceeded",
    "FrontEnd",
    "FrontEndOptions",
    "Health",
    "Heard",
    "InvalidRequest",
    "NotPermitted",
    "PositionExpired",
    "PositionUnknown",
    "Receipt",
    "RejectedScan",
    "ScanCounts",
    "ScanEvent",
    "Scanner",
    "ScannerOptions",
    "ScansNotSent",
    "ServerFault",
    "ServerOverloaded",
    "ServerUnavailable",
    "ShipmentStatus",
    "Spool",
    "SpoolBroken",
    "SpoolError",
    "SpoolFull",
    "SpoolInUse",
    "SpoolLevel",
    "SpoolOptions",
    "Statuses",
    "Subscriber",
    "SubscriberOptions",
    "Subscriptions",
    "SyncAdmin",
    "SyncConsumer",
    "SyncFrontEnd",
    "SyncScanner",
    "SyncSubscriber",
    "SyncSubscriptions",
    "TrackdError",
    "WaybillNotFound",
    "check_health",
    "receipt",
    "scan_event",
]
