"""The endpoints of a server: documents, each with a subscription of its own, and who waits for
news of them.

- An endpoint and its subscription are made and deleted together. The subscription is made first
  and deleted last, so that what a crash leaves between is a subscription without an endpoint,
  which the next start removes.
- `revision` changes with everything that a notifier has to know, and with nothing else.
- One change at a time; whoever reads sees the state before it or after it.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace

import structlog
from grpc import StatusCode

from trackd.sealing import KeyUnavailable, Seal
from trackd.store.documents import Documents
from trackd.v1.feed_pb2 import Subscription
from trackd.v1.notification_pb2 import Endpoint, EndpointState
from trackd.wire import endpoint_record
from trackd.wire.endpoint_record import EndpointRecord, Secret
from trackd.wire.endpoint_rules import (
    UrlRules,
    checked,
    endpoint_of,
    subscription_name,
    subscription_of,
)
from trackd.wire.errors import (
    CallError,
    endpoint_not_found,
    key_unavailable,
    too_many_endpoints,
)

KIND = "endpoints"

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class SubscriptionCalls:
    """What endpoints need of the subscriptions; each raises what a caller is to be told."""

    names: Callable[[], Iterable[str]]
    find: Callable[[str], Subscription | None]
    create: Callable[[Subscription], Awaitable[object]]
    update: Callable[[Subscription], Awaitable[object]]
    delete: Callable[[str], Awaitable[object]]


class Endpoints:
    """All endpoints, in the order in which they were made. One event loop."""

    def __init__(
        self,
        documents: Documents,
        seal: Seal,
        subscriptions: SubscriptionCalls,
        rules: UrlRules,
        *,
        endpoints_max: int,
        now_ms: Callable[[], int],
    ) -> None:
        """Reads what there is. Raises DataDamaged."""
        self._documents = documents
        self._seal = seal
        self._subscriptions = subscriptions
        self._rules = rules
        self._endpoints_max = endpoints_max
        self._now_ms = now_ms
        self._records: dict[str, EndpointRecord] = {}
        # Why the private parts cannot be read; empty if they can.
        self._locked = ""
        self._turn = asyncio.Lock()
        self._epoch = secrets.token_hex(4)
        self._number = 0
        self._changed = asyncio.Event()
        self._read_documents()

    # What there is.

    def get(self, endpoint_id: str) -> EndpointRecord:
        """An endpoint. Raises ENDPOINT_NOT_FOUND."""
        record = self._records.get(endpoint_id)
        if record is None:
            raise endpoint_not_found(endpoint_id)
        live = record.live(self._now_ms())
        if live is not record:
            self._records[endpoint_id] = live
            self._news()
        return live

    def has(self, endpoint_id: str) -> bool:
        """Whether there is one of this id."""
        return endpoint_id in self._records

    def all(self) -> list[EndpointRecord]:
        """Every endpoint, in the order in which they were made."""
        return [self.get(endpoint_id) for endpoint_id in list(self._records)]

    def targets(self) -> list[EndpointRecord]:
        """Every endpoint, with its private part. Raises KEY_UNAVAILABLE."""
        self._unlocked()
        return self.all()

    @property
    def revision(self) -> str:
        """The state that notifiers know by this name; another one after every restart."""
        return f"{self._epoch}.{self._number}"

    async def changed(self) -> None:
        """Returns after the next change of the revision, or once `wake` is called."""
        await self._changed.wait()

    def wake(self) -> None:
        """Lets everybody go who waits for a change."""
        self._changed.set()
        self._changed = asyncio.Event()

    def next_end_ms(self) -> int:
        """When a secret ends that signs beside a newer one; 0: none does."""
        return min(
            (each.next_end_ms for each in self._records.values() if each.next_end_ms), default=0
        )

    def now_s(self) -> float:
        """By the clock that secrets end by."""
        return self._now_ms() / 1000

    # What is done with them.

    async def reconcile(self) -> None:
        """Makes subscriptions and endpoints agree after a start."""
        async with self._turn:
            names = set(self._subscriptions.names())
            for name in names:
                endpoint_id = endpoint_of(name)
                if endpoint_id is not None and endpoint_id not in self._records:
                    await self._subscriptions.delete(name)
            for record in self._records.values():
                if subscription_name(record.endpoint.id) not in names:
                    await self._subscriptions.create(subscription_of(record.endpoint))

    async def create(self, asked: Endpoint) -> EndpointRecord:
        """A new one."""
        async with self._turn:
            if len(self._records) >= self._endpoints_max:
                raise too_many_endpoints(self._endpoints_max)
            self._unlocked()
            endpoint = await asyncio.to_thread(checked, asked, asked.url, self._rules)
            endpoint.id, endpoint.created_at_ms = endpoint_record.new_id(), self._now_ms()
            endpoint.state = EndpointState.ENDPOINT_STATE_ENABLED
            record = EndpointRecord(endpoint, asked.url, endpoint_record.new_secrets(asked.kind))
            # Before anything is made: without a key there is nothing to take back.
            await self._stored(record)
            await self._subscriptions.create(subscription_of(endpoint))
            try:
                return await self._put(record)
            except BaseException:
                await self._subscriptions.delete(subscription_name(endpoint.id))
                raise

    async def update(self, asked: Endpoint) -> EndpointRecord:
        """Other settings; an empty URL stays."""
        async with self._turn:
            record = self.get(asked.id)
            self._unlocked()
            asked.kind = record.endpoint.kind
            url = asked.url or record.url
            endpoint = await asyncio.to_thread(checked, asked, url, self._rules)
            old = record.endpoint
            endpoint.id, endpoint.created_at_ms = old.id, old.created_at_ms
            endpoint.state, endpoint.disabled_reason = old.state, old.disabled_reason
            endpoint.old_secret_until_ms = old.old_secret_until_ms
            await self._subscriptions.update(self._subscription_of(endpoint))
            return await self._put(replace(record, endpoint=endpoint, url=url))

    async def rotate(self, endpoint_id: str, *, overlap_ms: int) -> EndpointRecord:
        """A new secret; the one before it goes on signing for a while."""
        async with self._turn:
            record = self.get(endpoint_id)
            self._unlocked()
            until_ms = self._now_ms() + overlap_ms if overlap_ms else 0
            old = [Secret(each.text, until_ms) for each in record.secrets[:1] if until_ms]
            endpoint = _copy(record.endpoint)
            endpoint.old_secret_until_ms = until_ms
            secrets_now = (endpoint_record.new_secret(), *old)
            return await self._put(replace(record, endpoint=endpoint, secrets=secrets_now))

    async def disable(self, endpoint_id: str, reason: str) -> EndpointRecord:
        """Not told any more. Of one that is disabled the first reason stays."""
        async with self._turn:
            record = self.get(endpoint_id)
            if record.endpoint.state == EndpointState.ENDPOINT_STATE_DISABLED:
                return record
            self._unlocked()
            endpoint = _copy(record.endpoint)
            endpoint.state = EndpointState.ENDPOINT_STATE_DISABLED
            endpoint.disabled_reason = reason
            return await self._put(replace(record, endpoint=endpoint))

    async def enable(self, endpoint_id: str, *, from_now: bool) -> EndpointRecord:
        """Told again; from_now: nothing of what came before."""
        async with self._turn:
            record = self.get(endpoint_id)
            self._unlocked()
            if from_now:
                anew = self._subscription_of(record.endpoint)
                await self._delete_subscription(endpoint_id)
                await self._subscriptions.create(anew)
            endpoint = _copy(record.endpoint)
            endpoint.state, endpoint.disabled_reason = EndpointState.ENDPOINT_STATE_ENABLED, ""
            return await self._put(replace(record, endpoint=endpoint))

    async def delete(self, endpoint_id: str) -> None:
        """Gone, with its subscription."""
        async with self._turn:
            self.get(endpoint_id)
            await self._documents.put(KIND, {endpoint_id: None})
            del self._records[endpoint_id]
            self._news()
            await self._delete_subscription(endpoint_id)

    def _subscription_of(self, endpoint: Endpoint) -> Subscription:
        """The one that it has, with the endpoint's settings."""
        name = subscription_name(endpoint.id)
        return subscription_of(endpoint, self._subscriptions.find(name))

    async def _delete_subscription(self, endpoint_id: str) -> None:
        """It may be missing, where a start has not made subscriptions and endpoints agree yet."""
        try:
            await self._subscriptions.delete(subscription_name(endpoint_id))
        except CallError as error:
            if error.code is not StatusCode.NOT_FOUND:
                raise

    # How they are kept.

    def _read_documents(self) -> None:
        records = []
        for _, document in self._documents.list(KIND):
            try:
                records.append(endpoint_record.read(document, self._seal))
            except KeyUnavailable as error:
                self._locked = str(error)
                records.append(EndpointRecord(endpoint_record.shown_of(document), "", ()))
        if self._locked:
            _log.error("endpoints cannot be told: their secrets cannot be read", error=self._locked)
        records.sort(key=lambda each: (each.endpoint.created_at_ms, each.endpoint.id))
        self._records = {record.endpoint.id: record for record in records}

    def _unlocked(self) -> None:
        if self._locked:
            raise key_unavailable(self._locked)

    async def _stored(self, record: EndpointRecord) -> bytes:
        must_exist = bool(self._records)
        try:
            return await asyncio.to_thread(record.stored, self._seal, must_exist=must_exist)
        except KeyUnavailable as error:
            raise key_unavailable(str(error)) from None

    async def _put(self, record: EndpointRecord) -> EndpointRecord:
        """Durable, then seen."""
        record.endpoint.updated_at_ms = self._now_ms()
        endpoint_id = record.endpoint.id
        await self._documents.put(KIND, {endpoint_id: await self._stored(record)})
        self._records[endpoint_id] = record
        self._news()
        return record

    def _news(self) -> None:
        self._number += 1
        self.wake()


def _copy(endpoint: Endpoint) -> Endpoint:
    copy = Endpoint()
    copy.CopyFrom(endpoint)
    return copy
