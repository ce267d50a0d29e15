"""What workers of one server say to each other: PeerService, on the workers' own ports.

    StreamEvents    as of IngestService; only for partitions of the worker that is called
    GetStats        as of AdminService; only the partitions of the worker that is called
    ReadStatuses    partition, keys -> the rows, in the order of the keys; empty where there is none
    ReadTimeline    as Partition.read_timeline
    Reached         as Partition.reached
    WatchChanges    as of FeedService; of the partitions of the worker that is called
    GetLogBounds    which positions the logs of its partitions hold
    WorkShares      one subscription's shares in its partitions, for the worker that leads: a stream
                    of ShareCommands in, of ShareReports out (share_messages.py)
    ForgetShares    deletes the rows of these subscriptions, or of all others

and, of the worker that leads, every method about subscriptions and endpoints, by its name in the
contract.

Not part of the contract: both ends are always of one version. Every call carries the token that the
supervisor made for this run.
"""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

SERVICE = "trackd.internal.PeerService"
TOKEN_KEY = "trackd-peer-token"  # noqa: S105 (the name of it)

_FIELD = descriptor_pb2.FieldDescriptorProto
_BYTES, _STRING = _FIELD.TYPE_BYTES, _FIELD.TYPE_STRING
_INT64, _BOOL = _FIELD.TYPE_INT64, _FIELD.TYPE_BOOL
# message -> its fields, numbered in this order; a name that ends with "*" is repeated.
_MESSAGES: dict[str, dict[str, Any]] = {
    "ReadStatusesRequest": {"partition": _INT64, "keys*": _BYTES},
    "ReadStatusesResponse": {"rows*": _BYTES},
    "ReadTimelineRequest": {
        "partition": _INT64,
        "key": _BYTES,
        "after": _BYTES,
        "newest_first": _BOOL,
        "limit": _INT64,
        "bytes_max": _INT64,
    },
    "ReadTimelineResponse": {"status": _BYTES, "events*": _BYTES, "next": _BYTES},
    "ReachedRequest": {"partition": _INT64, "position": _INT64},
    "ReachedResponse": {"reached": _BOOL},
    "GetLogBoundsResponse": {"partitions*": _INT64, "oldest*": _INT64, "newest*": _INT64},
    "ForgetSharesRequest": {"ids*": _BYTES, "all_others": _BOOL},
    # What is to be said is collected while the message before it is under way. commands are
    # ShareCommands, reports ShareReports, in order.
    "ShareCommands": {"commands*": _BYTES},
    "ShareReports": {"reports*": _BYTES},
    # kind: a share_messages.Command, which says what of it holds.
    "ShareCommand": {
        "kind": _INT64,
        "partition": _INT64,
        "consumer": _INT64,
        "count": _INT64,
        "positions*": _INT64,
        "attempts*": _INT64,
        "delay_ms": _INT64,
        "reason": _STRING,
        "untried": _BOOL,
        "document": _BYTES,
        "number": _INT64,
        "after": _INT64,
        "bytes_max": _INT64,
        "act": _INT64,
    },
    # kind: a share_messages.Report.
    "ShareReport": {
        "kind": _INT64,
        "partition": _INT64,
        "consumer": _INT64,
        "count": _INT64,
        "ready": _INT64,
        "positions*": _INT64,
        "attempts*": _INT64,
        "wires*": _BYTES,
        "consumers*": _INT64,
        "figures*": _INT64,
        "number": _INT64,
        "more": _BOOL,
        "error": _BYTES,
    },
    # A WatchChangesResponse whose changes stay bytes.
    "WatchSlices": {"changes": _BYTES, "caught_up": _BYTES, "resume_token": _STRING},
}


def _made() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(
        name="trackd/internal/peer.proto", package="trackd.internal", syntax="proto3"
    )
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, (field, kind) in enumerate(fields.items(), 1):
            repeated = field.endswith("*")
            label = _FIELD.LABEL_REPEATED if repeated else _FIELD.LABEL_OPTIONAL
            message.field.add(name=field.rstrip("*"), number=number, type=kind, label=label)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"trackd.internal.{name}"))
        for name in _MESSAGES
    }


_CLASSES = _made()
ReadStatusesRequest = _CLASSES["ReadStatusesRequest"]
ReadStatusesResponse = _CLASSES["ReadStatusesResponse"]
ReadTimelineRequest = _CLASSES["ReadTimelineRequest"]
ReadTimelineResponse = _CLASSES["ReadTimelineResponse"]
ReachedRequest = _CLASSES["ReachedRequest"]
ReachedResponse = _CLASSES["ReachedResponse"]
GetLogBoundsResponse = _CLASSES["GetLogBoundsResponse"]
ForgetSharesRequest = _CLASSES["ForgetSharesRequest"]
ShareCommands = _CLASSES["ShareCommands"]
ShareReports = _CLASSES["ShareReports"]
ShareCommand = _CLASSES["ShareCommand"]
ShareReport = _CLASSES["ShareReport"]
WatchSlices = _CLASSES["WatchSlices"]
