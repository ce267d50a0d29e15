"""What every call has around it: a limit on how many run, figures, the register of a shutdown.

The register is our own because a gRPC server's stop returns before the `finally` of its handlers
has run.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
import structlog

from trackd.metrics import CallMetrics
from trackd.store.errors import SpaceLow, StorageFailed
from trackd.wire.errors import CallError, abort, overloaded, stopping, told

Context = Any  # grpc.aio.ServicerContext, whose stubs know no raw bytes
Request = TypeVar("Request")  # bytes, or an iterator over them
Answer = TypeVar("Answer")  # bytes, or nothing from a stream, which writes its answers itself

Behaviour = Callable[[Any, Context], Awaitable[Any]]  # what answers a method

# As they are counted: the name of a member of an enum is a call of its own.
_OK = grpc.StatusCode.OK.name
_CANCELLED = grpc.StatusCode.CANCELLED.name
# What gRPC names where it does not even begin with a write: another one is under way.
_NOT_BEGUN = "grpc_call_start_batch"

_log = structlog.get_logger()


class Calls:
    """The calls that are running."""

    def __init__(self, metrics: CallMetrics, on_call: Callable[[], None] = lambda: None) -> None:
        """on_call: told of each call that is taken in."""
        self._metrics = metrics
        self._on_call = on_call
        self._running = 0
        # There while somebody waits for the last call to end.
        self._idle: asyncio.Event | None = None
        # Set once: no new work is taken, streams end themselves.
        self.stopping = asyncio.Event()

    @property
    def running(self) -> int:
        """How many calls are at work."""
        return self._running

    async def idle(self) -> None:
        """Returns once no call is at work."""
        if self._running:
            self._idle = self._idle or asyncio.Event()
            await self._idle.wait()

    def around(
        self,
        method: str,
        limit: "Limit",
        behaviour: Callable[[Request, Context], Awaitable[Answer]],
        at_once: Callable[[Request], Answer | None] | None = None,
    ) -> Callable[[Request, Context], Awaitable[Answer]]:
        """Wraps a handler, which returns its answer or writes it, or raises.

        at_once: asked first; what it answers needs no waiting, and None is left to the behaviour.
        """
        observe = self._metrics.observer(method)
        on_call, is_stopping, clock = self._on_call, self.stopping.is_set, time.perf_counter

        # A look-up is a tenth of what gRPC takes for it, so what stands around it counts: nothing
        # is called here that can be written out.
        async def call(request: Request, context: Context) -> Answer:
            began = clock()
            code = _CANCELLED
            on_call()
            self._running += 1
            try:
                if is_stopping():
                    raise stopping()
                if limit.running >= limit.most:
                    raise overloaded(limit.what, limit.most)
                limit.running += 1
                try:
                    answer = None if at_once is None else at_once(request)
                    if answer is None:
                        answer = await behaviour(request, context)
                finally:
                    limit.running -= 1
                code = _OK
                return answer
            except grpc.aio.InternalError as error:
                # The caller is gone: nobody reads what is returned, and there is nobody to tell.
                if _NOT_BEGUN in str(error):
                    # Or is there, and is told nothing more: a write was cancelled, which goes on.
                    _log.error("call failed", method=method, exc_info=error)
                return None  # type: ignore[return-value]
            except Exception as error:
                code = ""
                refusal = self._told(method, error)
                # Counted before the caller hears of it, who may look at once.
                observe(refusal.code.name, clock() - began)
                await abort(context, refusal)
            finally:
                self._running -= 1
                if not self._running and self._idle:
                    self._idle.set()
                    self._idle = None
                if code:
                    observe(code, clock() - began)

        return call

    @staticmethod
    def _told(method: str, error: Exception) -> CallError:
        answer = told(error)
        # These end every call at once; they are logged once, by the wiring.
        if not isinstance(error, CallError | StorageFailed | SpaceLow):
            _log.error("call failed", method=method, told=answer.reason, exc_info=error)
        return answer


def to_its_end(behaviour: Behaviour) -> Behaviour:
    """For what changes something that is kept: once begun it is finished, though nobody waits.

    A caller who gives up while a document is being written would otherwise leave it on disk and not
    in memory: what he deleted would go on until the next start, and then be gone.
    """

    async def finished(request: Any, context: Context) -> Any:
        work = asyncio.ensure_future(behaviour(request, context))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            # The call counts as running until then, so a stop waits for it.
            await asyncio.wait([work])
            work.exception()  # there is nobody to tell
            raise

    return finished


@dataclass(slots=True)
class Limit:
    """How many calls of a kind may be at work; one more is told to come back."""

    what: str
    most: int
    running: int = 0
