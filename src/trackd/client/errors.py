"""What can go wrong for a caller of the client, named for the caller's next move.

One table leads from a gRPC status to an exception; no other file compares status codes to choose
one. Nothing here sends, waits or retries.
"""

from collections.abc import Mapping
from typing import Final

import grpc
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc import aio

from trackd.client.options import RETRY_AFTER_MS_MAX

# The reason given to a message that is over the receiver's limit.
MESSAGE_TOO_LARGE: Final = "MESSAGE_TOO_LARGE"
# The server's, when its answer would be.
RESPONSE_TOO_LARGE: Final = "RESPONSE_TOO_LARGE"

_STATUS_DETAILS_KEY = "grpc-status-details-bin"


class TrackdError(Exception):
    """Something trackd said, or that kept it from being asked.

    `reason` is the server's ErrorInfo reason (`WAYBILL_NOT_FOUND`), or the name of the status code
    where the server gave none; `metadata` holds the variable parts; `retry_after_ms` is set where
    the server said when to come back.
    """

    def __init__(
        self,
        message: str,
        *,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        retry_after_ms: int | None = None,
    ) -> None:
        """Keeps the parts apart, so that programs need not read the message."""
        super().__init__(message)
        self.reason = reason
        self.metadata: Mapping[str, str] = dict(metadata or {})
        self.retry_after_ms = retry_after_ms


class WaybillNotFound(TrackdError):
    """No scan of this waybill was ever accepted: check the number, or ask again after the first."""


class InvalidRequest(TrackdError):
    """The request itself is wrong: correct it; sending it again as it is will fail again."""


class PositionUnknown(TrackdError):
    """The position is from another data set: forget it and read without one."""


class PositionExpired(TrackdError):
    """What follows the position is not kept any more: take a snapshot, or go on at
    `metadata["oldest_resume_token"]` and miss what was let go.
    """


class NotPermitted(TrackdError):
    """The caller may not do this: check its credentials and role."""


class ServerUnavailable(TrackdError):
    """The server cannot be reached or cannot answer now, nothing was acknowledged: try later."""


class ServerOverloaded(ServerUnavailable):
    """The server has too much to do, or its disk is nearly full: try after `retry_after_ms`."""


class DeadlineExceeded(ServerUnavailable):
    """No answer came in time: give it longer, or try again later."""


class ServerFault(TrackdError):
    """The server failed or is not a trackd server that knows this call: tell its operator."""


class ScansNotSent(TrackdError):
    """A scanner without a spool was left before the server had answered for every scan.

    `metadata["unanswered"]` says how many; scan them again, repeats do no harm.
    """


class SpoolError(TrackdError):
    """A scan could not be kept on the device. It was not taken."""


class SpoolFull(SpoolError):
    """The spool or its disk is full: restore the link, or export and clear what was rejected."""


class SpoolInUse(SpoolError):
    """Another process has the spool open, or another scanner uses it: end that one first."""


class SpoolBroken(SpoolError):
    """The file is not a spool, is damaged, is of a newer version, or its disk fails: keep the file
    for repair and go on with a new one.
    """


_BY_REASON: Final[Mapping[str, type[TrackdError]]] = {
    "WAYBILL_NOT_FOUND": WaybillNotFound,
    "POSITION_UNKNOWN": PositionUnknown,
    "POSITION_EXPIRED": PositionExpired,
    # The same answer would be as large the next time.
    RESPONSE_TOO_LARGE: InvalidRequest,
}

_BY_CODE: Final[Mapping[grpc.StatusCode, type[TrackdError]]] = {
    grpc.StatusCode.CANCELLED: ServerUnavailable,
    grpc.StatusCode.UNKNOWN: ServerFault,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.NOT_FOUND: InvalidRequest,
    grpc.StatusCode.ALREADY_EXISTS: InvalidRequest,
    grpc.StatusCode.PERMISSION_DENIED: NotPermitted,
    grpc.StatusCode.UNAUTHENTICATED: NotPermitted,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ServerOverloaded,
    grpc.StatusCode.FAILED_PRECONDITION: InvalidRequest,
    grpc.StatusCode.ABORTED: ServerUnavailable,
    grpc.StatusCode.OUT_OF_RANGE: InvalidRequest,
    grpc.StatusCode.UNIMPLEMENTED: ServerFault,
    grpc.StatusCode.INTERNAL: ServerFault,
    grpc.StatusCode.UNAVAILABLE: ServerUnavailable,
    grpc.StatusCode.DATA_LOSS: ServerFault,
    # A call that ended with OK is no error; whoever asks about one got something else than an
    # answer.
    grpc.StatusCode.OK: ServerFault,
}


def error_of(failure: aio.AioRpcError) -> TrackdError:
    """The exception for a failed call, with what the server said about it."""
    code = failure.code()
    info, retry_after_ms = _details(failure)
    reason = info.reason or code.name
    kind = _BY_REASON.get(info.reason) or _BY_CODE[code]
    # gRPC has no code of its own for a message over the receiver's limit, only this text.
    if kind is ServerOverloaded and "larger than max" in (failure.details() or ""):
        kind, reason = InvalidRequest, MESSAGE_TOO_LARGE
    # What grpc.aio makes of a write that the end of its call overtook; the call's true status is
    # lost.
    if code is grpc.StatusCode.INTERNAL and failure.details() == "Internal error from Core":
        kind, reason = ServerUnavailable, "LINK_LOST"
    return kind(
        failure.details() or code.name,
        reason=reason,
        metadata=info.metadata,
        retry_after_ms=retry_after_ms,
    )


def _details(failure: aio.AioRpcError) -> tuple[ErrorInfo, int | None]:
    """What went wrong and when to come back, each empty where the server did not say."""
    info = ErrorInfo()
    retry_after_ms: int | None = None
    for key, value in failure.trailing_metadata() or ():
        if key != _STATUS_DETAILS_KEY or not isinstance(value, bytes):
            continue
        for detail in Status.FromString(value).details:
            if detail.Unpack(info):
                continue
            retry = RetryInfo()
            if detail.Unpack(retry):
                retry_after_ms = min(retry.retry_delay.ToMilliseconds(), RETRY_AFTER_MS_MAX)
    return info, retry_after_ms
