"""What every call has around it: a limit on how many run, figures, the register of a shutdown.

The register is our own because a gRPC server's stop returns before the `finally` of its handlers
has run.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import grpc
import structlog

from trackd.metrics import CallMetrics
from trackd.store.errors import SpaceLow, StorageFailed
from trackd.wire.errors import CallError, abort, overloaded, stopping, told

Context = Any  # grpc.aio.ServicerContext, whose stubs know no raw bytes
Request = TypeVar("Request")  # bytes, or an iterator over them
Answer = TypeVar("Answer")  # bytes, or nothing from a stream, which writes its answers itself

_log = structlog.get_logger()


class Calls:
    """The calls that are running."""

    def __init__(self, metrics: CallMetrics, on_call: Callable[[], None] = lambda: None) -> None:
        """on_call: told of each call that is taken in."""
        self._metrics = metrics
        self._on_call = on_call
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()
        # Set once: no new work is taken, streams end themselves.
        self.stopping = asyncio.Event()

    @property
    def running(self) -> int:
        """How many calls are at work."""
        return self._running

    async def idle(self) -> None:
        """Returns once no call is at work."""
        await self._idle.wait()

    def around(
        self,
        method: str,
        limit: "Limit",
        behaviour: Callable[[Request, Context], Awaitable[Answer]],
    ) -> Callable[[Request, Context], Awaitable[Answer]]:
        """Wraps a handler, which returns its answer or writes it, or raises."""
        observe = self._metrics.observer(method)

        async def call(request: Request, context: Context) -> Answer:
            began = time.perf_counter()
            code = grpc.StatusCode.CANCELLED
            refusal: CallError | None = None
            self._enter()
            try:
                if self.stopping.is_set():
                    raise stopping()
                with limit:
                    answer = await behaviour(request, context)
                code = grpc.StatusCode.OK
                return answer
            except grpc.aio.InternalError:
                # The caller is gone: nobody reads what is returned, and there is nobody to tell.
                return None  # type: ignore[return-value]
            except Exception as error:
                refusal = self._told(method, error)
                # Counted before the caller hears of it, who may look at once.
                observe(refusal.code.name, time.perf_counter() - began)
                await abort(context, refusal)
            finally:
                self._leave()
                if refusal is None:
                    observe(code.name, time.perf_counter() - began)

        return call

    @staticmethod
    def _told(method: str, error: Exception) -> CallError:
        answer = told(error)
        # These end every call at once; they are logged once, by the wiring.
        if not isinstance(error, CallError | StorageFailed | SpaceLow):
            _log.error("call failed", method=method, told=answer.reason, exc_info=error)
        return answer

    def _enter(self) -> None:
        self._on_call()
        self._running += 1
        self._idle.clear()

    def _leave(self) -> None:
        self._running -= 1
        if not self._running:
            self._idle.set()


class Limit:
    """How many calls of a kind may be at work; one more is told to come back."""

    def __init__(self, what: str, most: int) -> None:
        self._what = what
        self._most = most
        self.running = 0

    def __enter__(self) -> None:
        if self.running >= self._most:
            raise overloaded(self._what, self._most)
        self.running += 1

    def __exit__(self, *_: object) -> None:
        self.running -= 1
