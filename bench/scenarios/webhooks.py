"""How many webhooks a second one notifier delivers to a receiver that answers at once."""

import asyncio
import time

from bench.batches import BatchMaker
from bench.figures import Figure, Outcome
from bench.load import Load, WrongAnswer, send
from bench.plan import Bench
from bench.server import notifier
from bench.webhook_receiver import receiving
from trackd.client.notifications import Notifications
from trackd.v1.notification_pb2 import Endpoint, EndpointKind

_LOCAL = "--unsafe-allow-local-webhooks"
_ENDPOINTS = 10
_PATIENCE_S = 120.0


async def measure(bench: Bench) -> Outcome:
    """Every change of a load to a few endpoints, all of them delivered by one process."""
    scale = bench.scale
    with bench.server("webhooks", _LOCAL) as server:
        async with receiving(scale.webhooks) as received:
            await _make_endpoints(server.address, received.url)
            maker = BatchMaker(bench.mix())
            load = Load(float("inf"), events=scale.webhooks // _ENDPOINTS * 3 // 2)
            sent = await send(server.address, maker, load)
            sent.check(repeated=0)
            log = bench.directory / "notifier.log"
            with notifier(server.address, log, _LOCAL) as process:
                before, server_before = process.usage(), server.usage()
                began_at = time.perf_counter()
                try:
                    await asyncio.wait_for(received.enough.wait(), _PATIENCE_S)
                except TimeoutError:
                    raise WrongAnswer(
                        f"{received.count} of {scale.webhooks} webhooks came in {_PATIENCE_S:g} s"
                    ) from None
                seconds = time.perf_counter() - began_at
                cpu_s = process.usage().cpu_s - before.cpu_s
                server_cpu_s = server.usage().cpu_s - server_before.cpu_s
    return Outcome(
        [
            Figure("webhooks from one notifier", received.per_s, "webhooks/s", least=1_500),
            Figure("webhooks", received.count, ""),
            Figure("endpoints", _ENDPOINTS, ""),
            Figure("notifier CPU per webhook", cpu_s / received.count * 1e6, "µs"),
            Figure("server CPU per webhook", server_cpu_s / received.count * 1e6, "µs"),
            Figure("notifier CPU", cpu_s / seconds, "cores"),
        ]
    )


async def _make_endpoints(address: str, url: str) -> None:
    async with Notifications(address) as notifications:
        for _ in range(_ENDPOINTS):
            kind = EndpointKind.ENDPOINT_KIND_WEBHOOK
            await notifications.create(Endpoint(kind=kind, url=url, all_changes=True))
