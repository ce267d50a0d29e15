"""The calls that one process answers for all partitions: about named subscriptions and endpoints.

Where there are several workers one of them leads; in the others the same methods are answered by
handing them on to it (cluster/forwarding.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from trackd.v1 import feed_pb2, notification_pb2
from trackd.wire.calls import Behaviour

_FEED = feed_pb2.DESCRIPTOR.services_by_name["FeedService"]
_NOTIFICATION = notification_pb2.DESCRIPTOR.services_by_name["NotificationService"]
CONSUME = "ConsumeChanges"
# Every method of one answer; WatchChanges is each worker's own affair.
SUBSCRIPTION_METHODS = tuple(
    method.name for method in _FEED.methods if method.name not in {CONSUME, "WatchChanges"}
)
NOTIFICATION_METHODS = tuple(method.name for method in _NOTIFICATION.methods)


@dataclass(frozen=True, slots=True)
class LedCalls:
    """What answers them, by method; consume answers ConsumeChanges."""

    subscriptions: Mapping[str, Behaviour]
    consume: Behaviour
    notifications: Mapping[str, Behaviour]
