"""NotificationService: endpoints, their delivery log, and what a notifier asks and tells.

Translates; what endpoints are is in endpoints.py, what they may be in endpoint_rules.py.
"""

import asyncio
from collections.abc import Mapping

from trackd.v1 import notification_pb2 as pb
from trackd.wire.calls import Behaviour, Calls, Context
from trackd.wire.delivery_log import DeliveryLog
from trackd.wire.endpoint_record import EndpointRecord
from trackd.wire.endpoint_rules import TEXT_CHARACTERS_MAX, checked_reason, overlap_ms
from trackd.wire.endpoint_tests import EndpointTests
from trackd.wire.endpoints import Endpoints
from trackd.wire.errors import invalid
from trackd.wire.requests import parsed

DELIVERIES_PAGE_SIZE_MAX = 500
DELIVERIES_PAGE_SIZE_DEFAULT = 100
RECORDED_MAX = 1_000
TARGETS_WAIT_MS_MAX = 60_000
# What a notifier sends of itself is no longer than this.
_ID_CHARACTERS_MAX = 200


class NotificationService:
    """Every method of the service."""

    def __init__(self, endpoints: Endpoints, log: DeliveryLog, calls: Calls) -> None:
        self._endpoints = endpoints
        self._log = log
        self._calls = calls
        self._tests = EndpointTests()

    @property
    def calls(self) -> Mapping[str, Behaviour]:
        """What answers each method."""
        return {
            "CreateEndpoint": self.create_endpoint,
            "GetEndpoint": self.get_endpoint,
            "ListEndpoints": self.list_endpoints,
            "UpdateEndpoint": self.update_endpoint,
            "RotateEndpointSecret": self.rotate_endpoint_secret,
            "TestEndpoint": self.try_endpoint,
            "DisableEndpoint": self.disable_endpoint,
            "EnableEndpoint": self.enable_endpoint,
            "DeleteEndpoint": self.delete_endpoint,
            "ListDeliveries": self.list_deliveries,
            "ListTargets": self.list_targets,
            "RecordDeliveries": self.record_deliveries,
        }

    # For those whose endpoints they are.

    async def create_endpoint(self, request: bytes, _: Context) -> bytes:
        """CreateEndpoint."""
        asked = parsed(pb.CreateEndpointRequest, request)
        record = await self._endpoints.create(asked.endpoint)
        answer = pb.CreateEndpointResponse(endpoint=record.endpoint, secret=_newest(record))
        return answer.SerializeToString()

    async def get_endpoint(self, request: bytes, _: Context) -> bytes:
        """GetEndpoint."""
        asked = parsed(pb.GetEndpointRequest, request)
        endpoint = self._endpoints.get(asked.id).endpoint
        return pb.GetEndpointResponse(endpoint=endpoint).SerializeToString()

    async def list_endpoints(self, request: bytes, _: Context) -> bytes:
        """ListEndpoints."""
        parsed(pb.ListEndpointsRequest, request)
        endpoints = [record.endpoint for record in self._endpoints.all()]
        return pb.ListEndpointsResponse(endpoints=endpoints).SerializeToString()

    async def update_endpoint(self, request: bytes, _: Context) -> bytes:
        """UpdateEndpoint."""
        asked = parsed(pb.UpdateEndpointRequest, request)
        record = await self._endpoints.update(asked.endpoint)
        return pb.UpdateEndpointResponse(endpoint=record.endpoint).SerializeToString()

    async def rotate_endpoint_secret(self, request: bytes, _: Context) -> bytes:
        """RotateEndpointSecret."""
        asked = parsed(pb.RotateEndpointSecretRequest, request)
        if self._endpoints.get(asked.id).endpoint.kind != pb.EndpointKind.ENDPOINT_KIND_WEBHOOK:
            raise invalid("id", "texts to people are not signed", "INVALID_ENDPOINT")
        record = await self._endpoints.rotate(asked.id, overlap_ms=overlap_ms(asked.overlap_ms))
        answer = pb.RotateEndpointSecretResponse(endpoint=record.endpoint, secret=_newest(record))
        return answer.SerializeToString()

    async def try_endpoint(self, request: bytes, _: Context) -> bytes:
        """TestEndpoint."""
        asked = parsed(pb.TestEndpointRequest, request)
        self._endpoints.get(asked.id)
        test = self._tests.ask(asked.id)
        self._endpoints.wake()
        delivery = await self._tests.result(test)
        return pb.TestEndpointResponse(delivery=delivery).SerializeToString()

    async def disable_endpoint(self, request: bytes, _: Context) -> bytes:
        """DisableEndpoint."""
        asked = parsed(pb.DisableEndpointRequest, request)
        record = await self._endpoints.disable(asked.id, checked_reason(asked.reason))
        return pb.DisableEndpointResponse(endpoint=record.endpoint).SerializeToString()

    async def enable_endpoint(self, request: bytes, _: Context) -> bytes:
        """EnableEndpoint."""
        asked = parsed(pb.EnableEndpointRequest, request)
        record = await self._endpoints.enable(asked.id, from_now=asked.from_now)
        return pb.EnableEndpointResponse(endpoint=record.endpoint).SerializeToString()

    async def delete_endpoint(self, request: bytes, _: Context) -> bytes:
        """DeleteEndpoint."""
        asked = parsed(pb.DeleteEndpointRequest, request)
        await self._endpoints.delete(asked.id)
        await self._log.forget(asked.id)
        return pb.DeleteEndpointResponse().SerializeToString()

    async def list_deliveries(self, request: bytes, _: Context) -> bytes:
        """ListDeliveries."""
        asked = parsed(pb.ListDeliveriesRequest, request)
        self._endpoints.get(asked.id)
        if not 0 <= asked.page_size <= DELIVERIES_PAGE_SIZE_MAX:
            raise invalid(
                "page_size",
                f"must be 0 to {DELIVERIES_PAGE_SIZE_MAX}",
                limit=DELIVERIES_PAGE_SIZE_MAX,
            )
        token = asked.page_token
        if token and not (token.isascii() and token.isdigit() and int(token)):
            raise invalid("page_token", "not a token of this list")
        deliveries, rest = self._log.page(
            asked.id, size=asked.page_size or DELIVERIES_PAGE_SIZE_DEFAULT, before=int(token or 0)
        )
        return pb.ListDeliveriesResponse(
            deliveries=deliveries, next_page_token=str(rest) if rest else ""
        ).SerializeToString()

    # For notifiers.

    async def list_targets(self, request: bytes, _: Context) -> bytes:
        """ListTargets."""
        asked = parsed(pb.ListTargetsRequest, request)
        if not 0 <= asked.wait_ms <= TARGETS_WAIT_MS_MAX:
            raise invalid(
                "wait_ms", f"must be 0 to {TARGETS_WAIT_MS_MAX}", limit=TARGETS_WAIT_MS_MAX
            )
        with self._tests:
            targets = self._endpoints.targets()
            if asked.known_revision == self._endpoints.revision and not self._tests.waiting:
                await self._news(asked.wait_ms / 1000)
                targets = self._endpoints.targets()
        revision = self._endpoints.revision
        answer = pb.ListTargetsResponse(revision=revision, tests=self._tests.take())
        if asked.known_revision != revision:
            answer.complete = True
            answer.targets.extend(record.target() for record in targets)
        return answer.SerializeToString()

    async def record_deliveries(self, request: bytes, _: Context) -> bytes:
        """RecordDeliveries."""
        asked = parsed(pb.RecordDeliveriesRequest, request)
        if len(asked.deliveries) > RECORDED_MAX:
            raise invalid("deliveries", f"at most {RECORDED_MAX}", limit=RECORDED_MAX)
        for recorded in asked.deliveries:
            attempt = recorded.delivery
            attempt.error = attempt.error[:TEXT_CHARACTERS_MAX]
            for name in ("webhook_id", "waybill_number", "position"):
                setattr(attempt, name, getattr(attempt, name)[:_ID_CHARACTERS_MAX])
            if self._endpoints.has(recorded.endpoint_id):
                self._log.add(recorded.endpoint_id, attempt)
            if recorded.test_id:
                self._tests.answer(recorded.test_id, attempt)
        return pb.RecordDeliveriesResponse().SerializeToString()

    async def _news(self, wait_s: float) -> None:
        """Returns when there is something new, the time is over, or the server stops."""
        end_ms = self._endpoints.next_end_ms()
        if end_ms:
            wait_s = min(wait_s, max(end_ms / 1000 - self._endpoints.now_s(), 0))
        waits = [
            asyncio.ensure_future(self._endpoints.changed()),
            asyncio.ensure_future(self._calls.stopping.wait()),
        ]
        try:
            await asyncio.wait(waits, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()


def _newest(record: EndpointRecord) -> str:
    return record.secrets[0].text if record.secrets else ""
