"""What a caller is told: one table from errors to status codes, and the details of every error.

Every error is a google.rpc.Status with one ErrorInfo (domain "trackd", a reason in
UPPER_SNAKE_CASE, variable parts in its metadata); field faults add BadRequest, "come back later"
adds RetryInfo. What happened inside is logged, not told.
"""

from dataclasses import dataclass, field
from typing import NoReturn

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from trackd.store.errors import (
    DataBehind,
    DataDamaged,
    DirectoryInUse,
    SpaceLow,
    StorageFailed,
    StoreError,
    WriteStalled,
    WrongData,
)

DOMAIN = "trackd"
_STATUS_DETAILS_KEY = "grpc-status-details-bin"


# Not frozen: whoever passes an exception on may set its traceback, contextlib among them.
@dataclass(slots=True)
class CallError(Exception):
    """Ends a call. message is for people; reason, metadata and field are for programs."""

    code: grpc.StatusCode
    reason: str
    message: str
    metadata: dict[str, str] = field(default_factory=dict)
    field: str = ""
    retry_after_s: float = 0.0

    def details(self) -> bytes:
        """The google.rpc.Status, serialised."""
        details = [ErrorInfo(reason=self.reason, domain=DOMAIN, metadata=self.metadata)]
        extra: list[BadRequest | RetryInfo] = []
        if self.field:
            violation = BadRequest.FieldViolation(field=self.field, description=self.message)
            extra.append(BadRequest(field_violations=[violation]))
        if self.retry_after_s:
            delay = Duration()
            delay.FromMilliseconds(int(self.retry_after_s * 1000))
            extra.append(RetryInfo(retry_delay=delay))
        status = Status(code=self.code.value[0], message=self.message)
        for detail in [*details, *extra]:
            packed = Any()
            packed.Pack(detail)
            status.details.append(packed)
        serialised: bytes = status.SerializeToString()
        return serialised


def invalid(
    field_name: str, message: str, reason: str = "INVALID_ARGUMENT", *, limit: int | None = None
) -> CallError:
    """A request that must be changed before it is sent again; limit: the bound it went beyond."""
    metadata = {"field": field_name} | ({} if limit is None else {"limit": str(limit)})
    return CallError(
        grpc.StatusCode.INVALID_ARGUMENT,
        reason,
        f"{field_name}: {message}",
        metadata,
        field=field_name,
    )


def overloaded(what: str, limit: int, retry_after_s: float = 0.1) -> CallError:
    """A bound was reached that will not stay reached: come back later."""
    return CallError(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "OVERLOADED",
        f"{what}: at most {limit}; try again later",
        {"limit": str(limit)},
        retry_after_s=retry_after_s,
    )


# Made anew each time: an exception that is raised again and again collects the frames of all its
# callers, with their requests.


def low_space() -> CallError:
    """Nothing is written while the disk is nearly full."""
    return CallError(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "DISK_NEARLY_FULL",
        "the server's disk is nearly full: nothing is stored until there is space; reads go on",
        retry_after_s=5.0,
    )


def stopping(metadata: dict[str, str] | None = None) -> CallError:
    """No call begins any more, and streams end; metadata: where to go on, if there is a place."""
    return CallError(
        grpc.StatusCode.UNAVAILABLE,
        "STOPPING",
        "the server is stopping: send again what was not acknowledged",
        metadata or {},
        retry_after_s=1.0,
    )


def malformed() -> CallError:
    """Bytes that are no request."""
    return CallError(
        grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_REQUEST", "the request cannot be parsed"
    )


def endpoint_not_found(endpoint_id: str) -> CallError:
    """No endpoint of this id."""
    return CallError(
        grpc.StatusCode.NOT_FOUND,
        "ENDPOINT_NOT_FOUND",
        f"there is no endpoint {endpoint_id!r}",
        {"id": endpoint_id},
    )


def too_many_endpoints(limit: int) -> CallError:
    """The bound of endpoints is reached."""
    return CallError(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "TOO_MANY_ENDPOINTS",
        f"at most {limit} endpoints: delete one, or raise endpoints_max",
        {"limit": str(limit)},
    )


def key_unavailable(why: str) -> CallError:
    """The secrets of endpoints can be neither read nor kept."""
    return CallError(
        grpc.StatusCode.FAILED_PRECONDITION,
        "KEY_UNAVAILABLE",
        f"the secrets of endpoints cannot be kept or read: {why} (setting secrets_key_file)",
    )


def no_notifier() -> CallError:
    """Nobody is there to make a test."""
    return CallError(
        grpc.StatusCode.FAILED_PRECONDITION,
        "NO_NOTIFIER",
        "no notifier is connected: start one with `trackd notify`",
    )


def no_test_result() -> CallError:
    """A test was asked for, and nothing came of it."""
    return CallError(
        grpc.StatusCode.DEADLINE_EXCEEDED,
        "NO_TEST_RESULT",
        "no notifier told the result of the test in time; see the log of the notifier",
    )


_STORAGE_FAILED = CallError(
    grpc.StatusCode.UNAVAILABLE,
    "STORAGE_FAILED",
    "the server's storage failed and it is going down: nothing of this was acknowledged",
    retry_after_s=1.0,
)
_DATA_DAMAGED = CallError(
    grpc.StatusCode.DATA_LOSS, "DATA_DAMAGED", "stored data of this request cannot be read"
)

# What the store raises -> what the caller is told. Total over StoreError: a test says so.
STORE_ERRORS: dict[type[StoreError], CallError] = {
    StorageFailed: _STORAGE_FAILED,
    SpaceLow: low_space(),
    WriteStalled: _STORAGE_FAILED,
    DataDamaged: _DATA_DAMAGED,
    DataBehind: _STORAGE_FAILED,
    DirectoryInUse: _STORAGE_FAILED,
    WrongData: _STORAGE_FAILED,
}
INTERNAL = CallError(grpc.StatusCode.INTERNAL, "INTERNAL", "the server has a defect; see its log")


def told(error: Exception) -> CallError:
    """What the caller is told of an error."""
    if isinstance(error, CallError):
        return error
    for kind in type(error).mro():
        if kind in STORE_ERRORS:
            return STORE_ERRORS[kind]
    return INTERNAL


async def abort(context: "grpc.aio.ServicerContext[bytes, bytes]", error: CallError) -> NoReturn:
    """Ends the call with the error."""
    await context.abort(error.code, error.message, ((_STATUS_DETAILS_KEY, error.details()),))
    raise AssertionError("abort raises")
