"""What a caller is told: one table, total over what the store raises, one shape for every error."""

import grpc
import pytest

from tests.wire.caller import refusal_of
from trackd.store import errors as store_errors
from trackd.store.errors import DataDamaged, StorageFailed, StoreError
from trackd.store.records import UnreadableRecord
from trackd.wire.errors import (
    INTERNAL,
    STORE_ERRORS,
    CallError,
    invalid,
    low_space,
    malformed,
    overloaded,
    stopping,
    told,
)


def every_store_error(kind: type[StoreError] = StoreError) -> list[type[StoreError]]:
    """All errors of the store, and those that are kinds of another."""
    found = []
    for each in kind.__subclasses__():
        found += [each, *every_store_error(each)]
    return found


class Received:
    """An error as the caller's library shows it."""

    def __init__(self, error: CallError) -> None:
        self._error = error

    def trailing_metadata(self) -> list[tuple[str, bytes]]:
        """See grpc.Call."""
        return [("other", b""), ("grpc-status-details-bin", self._error.details())]

    def code(self) -> grpc.StatusCode:
        """See grpc.Call."""
        return self._error.code

    def details(self) -> str:
        """See grpc.Call."""
        return self._error.message


def test_the_table_is_total() -> None:
    """Every error of the store has its line, or is a kind of one that has."""
    assert {
        kind for kind in every_store_error() if kind.__module__ == store_errors.__name__
    } == set(STORE_ERRORS)
    for kind in every_store_error():
        assert told(kind("inside")) is not INTERNAL, kind


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (StorageFailed("x"), grpc.StatusCode.UNAVAILABLE, "STORAGE_FAILED"),
        (DataDamaged("x"), grpc.StatusCode.DATA_LOSS, "DATA_DAMAGED"),
        (UnreadableRecord("x"), grpc.StatusCode.DATA_LOSS, "DATA_DAMAGED"),
        (StoreError("x"), grpc.StatusCode.INTERNAL, "INTERNAL"),
        (KeyError("x"), grpc.StatusCode.INTERNAL, "INTERNAL"),
        (invalid("f", "x"), grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT"),
    ],
)
def test_what_happened_inside_is_not_told(
    error: Exception, code: grpc.StatusCode, reason: str
) -> None:
    """A code and a reason for programs, a sentence for people, no internals."""
    answer = told(error)
    assert (answer.code, answer.reason) == (code, reason)
    if not isinstance(error, CallError):
        assert str(error) not in answer.message.split()


ERRORS = [
    *STORE_ERRORS.values(),
    INTERNAL,
    invalid("events", "too many"),
    overloaded("calls", 7),
    low_space(),
    stopping(),
    malformed(),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.reason)
def test_every_error_has_one_shape(error: CallError) -> None:
    """A google.rpc.Status with one ErrorInfo first; what must be changed, or when to come back."""
    refusal = refusal_of(Received(error))
    assert (refusal.code, refusal.reason) == (error.code, error.reason)
    assert refusal.fields == ([error.field] if error.field else [])
    assert refusal.retry_after_s == (error.retry_after_s or None)
    assert refusal.metadata == error.metadata


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.reason)
def test_who_may_come_back_is_told_when(error: CallError) -> None:
    """RetryInfo stands with the codes that ask for another try, and with no other."""
    come_back = error.code in {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNAVAILABLE}
    assert bool(error.retry_after_s) is come_back
    assert bool(error.field) <= (error.code == grpc.StatusCode.INVALID_ARGUMENT)
