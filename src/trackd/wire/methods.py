"""What answers each method of gRPC: one table, asked once for a call.

grpc.aio asks one generic handler after another, for every call: 40 of them took 17 us of it. And
each method that is registered, which is what generated code does beside, is waited for by a task of
its own, all of which are looked at whenever any call comes in. So everything stands in this table,
and nothing is registered. Nothing here knows what a method does.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import grpc


class Methods(grpc.GenericRpcHandler):
    """The handlers of all methods, by full name.

    It takes the place of a server for generated `add_…Servicer_to_server`, which adds the handlers
    of a service twice: in a generic handler, and by name.
    """

    def __init__(self) -> None:
        self._handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}

    def add_registered_method_handlers(
        self, service_name: str, method_handlers: Mapping[str, "grpc.RpcMethodHandler[Any, Any]"]
    ) -> None:
        """Adds handlers, by the method's name within its service. See grpc.Server."""
        for method, handler in method_handlers.items():
            self._handlers[f"/{service_name}/{method}"] = handler

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Nothing: they are added by name."""

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> "grpc.RpcMethodHandler[Any, Any] | None":
        """What answers a call; None if nobody does."""
        return self._handlers.get(handler_call_details.method)
