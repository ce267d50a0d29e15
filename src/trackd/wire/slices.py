"""A batch taken apart into its events' own bytes, and an event as deep as answers hold it.

A message that is read as `bytes` is its wire bytes: the requests read by these two messages, which
have the field numbers of AppendEventsRequest and StreamEventsRequest but `repeated bytes` for the
events, give every event as it was sent, at a tenth of what serialising it again costs (0.06 against
0.32 us per event).
"""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from trackd.v1 import event_pb2

_FIELD = descriptor_pb2.FieldDescriptorProto
# Set in every byte of a varint but its last.
_VARINT_CONTINUES = 0x80


def _messages() -> tuple[Any, Any]:
    file = descriptor_pb2.FileDescriptorProto(
        name="trackd/internal/slices.proto", package="trackd.internal", syntax="proto3"
    )
    append = file.message_type.add(name="AppendSlices")
    append.field.add(name="events", number=1, type=_FIELD.TYPE_BYTES, label=_FIELD.LABEL_REPEATED)
    stream = file.message_type.add(name="StreamSlices")
    # As bytes, too: whoever reads it says whether it is UTF-8.
    stream.field.add(name="batch_id", number=1, type=_FIELD.TYPE_BYTES, label=_FIELD.LABEL_OPTIONAL)
    stream.field.add(name="events", number=2, type=_FIELD.TYPE_BYTES, label=_FIELD.LABEL_REPEATED)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    append_type, stream_type = (
        message_factory.GetMessageClass(pool.FindMessageTypeByName(f"trackd.internal.{name}"))
        for name in ("AppendSlices", "StreamSlices")
    )
    return append_type, stream_type


AppendSlices, StreamSlices = _messages()

# Readers of protobuf give up at a depth of 100, groups of unknown fields included, which nest as
# deep as a sender likes. Answers hold an event at a depth of 4, and whoever takes them may put them
# into messages of his own.
DEPTH_SPARED = 20
_DEEPER = 1
_EVENT = 2
_START_GROUP, _DELIMITED, _END_GROUP = 3, 2, 4


def _deep() -> Any:
    file = descriptor_pb2.FileDescriptorProto(
        name="trackd/internal/deep.proto", package="trackd.internal", syntax="proto2"
    )
    file.dependency.append(event_pb2.DESCRIPTOR.name)
    deep = file.message_type.add(name="Deep")
    for name, number, kind, of in (
        ("deeper", _DEEPER, _FIELD.TYPE_GROUP, ".trackd.internal.Deep"),
        ("event", _EVENT, _FIELD.TYPE_MESSAGE, ".trackd.v1.ScanEvent"),
    ):
        deep.field.add(
            name=name, number=number, type=kind, type_name=of, label=_FIELD.LABEL_OPTIONAL
        )
    pool = descriptor_pool.Default()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("trackd.internal.Deep"))


_Deep: Any = _deep()
_DESCENT = bytes((_DEEPER << 3 | _START_GROUP,)) * DEPTH_SPARED + bytes((_EVENT << 3 | _DELIMITED,))
_ASCENT = bytes((_DEEPER << 3 | _END_GROUP,)) * DEPTH_SPARED


def can_be_answered(wire: bytes) -> bool:
    """Whether an event that can be parsed still can where answers hold it."""
    length = len(wire)
    varint = bytearray()
    while length >= _VARINT_CONTINUES:
        varint.append(length & 0x7F | _VARINT_CONTINUES)
        length >>= 7
    varint.append(length)
    try:
        _Deep.FromString(b"".join((_DESCENT, varint, wire, _ASCENT)))
    except DecodeError:
        return False
    return True
