"""Every failure of a call becomes the exception that names the caller's next move."""

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc import aio

from trackd.client import (
    DeadlineExceeded,
    InvalidRequest,
    NotPermitted,
    PositionUnknown,
    ServerFault,
    ServerOverloaded,
    ServerUnavailable,
    TrackdError,
    WaybillNotFound,
)
from trackd.client.errors import error_of


def failure(code: grpc.StatusCode, details: str = "", *, packed: bytes = b"") -> aio.AioRpcError:
    """A failed call."""
    metadata = [("grpc-status-details-bin", packed)] if packed else []
    return aio.AioRpcError(code, aio.Metadata(), aio.Metadata(*metadata), details=details)


def status(code: grpc.StatusCode, reason: str, *, retry_after_ms: int | None = None) -> bytes:
    """What trackd sends beside the code."""
    said = Status(code=code.value[0])
    said.details.add().Pack(BadRequest())
    said.details.add().Pack(ErrorInfo(domain="trackd", reason=reason, metadata={"oldest": "p7"}))
    if retry_after_ms is not None:
        delay = Duration()
        delay.FromMilliseconds(retry_after_ms)
        said.details.add().Pack(RetryInfo(retry_delay=delay))
    packed: bytes = said.SerializeToString()
    return packed


@pytest.mark.parametrize("code", list(grpc.StatusCode))
def test_every_status_code_has_an_exception(code: grpc.StatusCode) -> None:
    """The table is total, with and without details; the code's name stands in for a reason."""
    bare = error_of(failure(code, "said"))
    assert type(bare) is not TrackdError
    assert (str(bare), bare.reason, bare.metadata, bare.retry_after_ms) == (
        "said",
        code.name,
        {},
        None,
    )
    told = error_of(failure(code, "said", packed=status(code, "SOMETHING", retry_after_ms=250)))
    assert type(told) is type(bare)
    assert (told.reason, told.metadata, told.retry_after_ms) == (
        "SOMETHING",
        {"oldest": "p7"},
        250,
    )


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        (grpc.StatusCode.NOT_FOUND, "WAYBILL_NOT_FOUND", WaybillNotFound),
        (grpc.StatusCode.FAILED_PRECONDITION, "POSITION_UNKNOWN", PositionUnknown),
        (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_POSITION", InvalidRequest),
        (grpc.StatusCode.UNAVAILABLE, "STORAGE_FAILED", ServerUnavailable),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "LOW_SPACE", ServerOverloaded),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "", DeadlineExceeded),
        (grpc.StatusCode.PERMISSION_DENIED, "ROLE", NotPermitted),
        (grpc.StatusCode.DATA_LOSS, "CHECKSUM", ServerFault),
    ],
)
def test_the_next_move_is_named(
    code: grpc.StatusCode, reason: str, kind: type[TrackdError]
) -> None:
    """The contract's errors lead to the exception that says what to do."""
    assert type(error_of(failure(code, packed=status(code, reason)))) is kind


def test_a_message_over_the_limit_is_the_requests_fault() -> None:
    """A server reports it as RESOURCE_EXHAUSTED, but waiting does not help."""
    text = "SERVER: Received message larger than max (20610 vs. 8000)"
    error = error_of(failure(grpc.StatusCode.RESOURCE_EXHAUSTED, text))
    assert type(error) is InvalidRequest
    assert error.reason == "MESSAGE_TOO_LARGE"


def test_a_write_into_a_lost_call_is_no_fault_of_the_server() -> None:
    """What grpc.aio reports as INTERNAL of its own is a lost link."""
    error = error_of(failure(grpc.StatusCode.INTERNAL, "Internal error from Core"))
    assert (type(error), error.reason) == (ServerUnavailable, "LINK_LOST")


def test_a_servers_wish_to_wait_is_bounded() -> None:
    """A RetryInfo of a day is cut to the client's own bound."""
    code = grpc.StatusCode.UNAVAILABLE
    day = status(code, "BUSY", retry_after_ms=86_400_000)
    assert error_of(failure(code, packed=day)).retry_after_ms == 60_000
