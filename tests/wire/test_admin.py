"""AdminService, health, reflection and metrics of a running server; and how it says goodbye."""

import asyncio
from typing import Any, cast

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub
from xxhash import xxh3_64_intdigest

import trackd
from tests.conftest import Serve
from tests.harness.server import ServerProcess
from tests.wire.caller import Caller, refused, scan_event
from trackd.store.engine_figures import ENGINE_FIGURES
from trackd.v1 import admin_pb2, feed_pb2, ingest_pb2, notification_pb2, tracking_pb2
from trackd.v1.admin_pb2 import GetStatsRequest, GetTopologyRequest
from trackd.v1.tracking_pb2 import GetStatusRequest

# Every service of the contract.
SERVICES = [
    service.full_name
    for module in (admin_pb2, feed_pb2, ingest_pb2, notification_pb2, tracking_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
]


async def test_the_topology_says_where_every_waybill_lives(
    server: ServerProcess, caller: Caller, waybill: str
) -> None:
    """xxh3_64 of the number modulo the partitions, as the position of its status shows."""
    topology = await caller.admin.GetTopology(GetTopologyRequest())
    assert topology.partition_count == 3
    assert [each.partition for each in topology.partitions] == [0, 1, 2]
    assert {each.address for each in topology.partitions} == {server.grpc}
    found = set()
    for n in range(30):
        number = f"{waybill}-{n}"
        await caller.append(scan_event("a", number.lower()))
        data_set_id, _, parts = (await caller.status(number)).position.partition("/")
        partition = int(parts.partition(".")[0])
        assert data_set_id == topology.data_set_id
        assert partition == xxh3_64_intdigest(number.encode()) % 3
        found.add(partition)
    assert found == {0, 1, 2}


async def test_bytes_that_are_no_request_are_refused(caller: Caller) -> None:
    """Though nothing is asked in a request of these."""
    for method in ("GetTopology", "GetStats"):
        call: Any = caller.channel.unary_unary(f"/trackd.v1.AdminService/{method}")
        refusal = await refused(call(b"\xff"))
        assert refusal.reason == "MALFORMED_REQUEST"


async def test_the_stats_count_what_was_stored(caller: Caller, waybill: str) -> None:
    """Positions over all partitions move by what is accepted, and nothing waits."""

    async def positions() -> list[int]:
        stats = await caller.admin.GetStats(GetStatsRequest())
        return [each.durable_position for each in stats.partitions]

    before = await positions()
    await caller.append(*(scan_event("a", f"{waybill}-{n}") for n in range(50)))
    await caller.append(scan_event("a", f"{waybill}-0"))
    assert sum(await positions()) == sum(before) + 50
    stats = await caller.admin.GetStats(GetStatsRequest())
    assert stats.server_version == trackd.__version__
    assert stats.started_at_ms > 0
    assert stats.disk_free_bytes > 0
    assert not stats.low_space
    for each in stats.partitions:
        assert each.planned_position == each.durable_position
        assert 0 < each.events <= each.durable_position
        assert 0 < each.waybills <= each.durable_position
        assert each.commits > 0
        assert each.bytes_on_disk > 0
        assert each.queued_events == 0
        for latency in (each.commit_latency, each.fsync_latency):
            assert 0 < latency.p50_us <= latency.p99_us <= latency.max_us
            assert latency.count > 0


# Health and reflection.


async def test_health_says_serving_of_every_service(caller: Caller) -> None:
    """And of the server as a whole; of a service that is not there it says nothing."""
    health: Any = HealthStub(caller.channel)
    for service in ("", *SERVICES):
        answer = await health.Check(HealthCheckRequest(service=service))
        assert answer.status == HealthCheckResponse.SERVING
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await health.Check(HealthCheckRequest(service="trackd.v1.GuessService"))
    assert raised.value.code() == grpc.StatusCode.NOT_FOUND


def listed(server: ServerProcess) -> list[str]:
    """The services that reflection lists. Blocks."""
    with grpc.insecure_channel(server.grpc) as channel:
        reflection: Any = ServerReflectionStub(channel)
        request = ServerReflectionRequest(list_services="")
        (answer,) = reflection.ServerReflectionInfo(iter([request]), timeout=60)
    return [service.name for service in answer.list_services_response.service]


async def test_reflection_is_off_unless_asked_for(
    server: ServerProcess, small_server: ServerProcess
) -> None:
    """With --reflection a tool can look around; without it nobody can."""
    names = await asyncio.to_thread(listed, small_server)
    assert {*SERVICES, "grpc.health.v1.Health"} <= set(names)
    with pytest.raises(grpc.RpcError) as raised:
        await asyncio.to_thread(listed, server)
    assert cast(grpc.Call, raised.value).code() == grpc.StatusCode.UNIMPLEMENTED


async def test_what_is_not_there_is_unimplemented(caller: Caller) -> None:
    """A method of a later version, or of nobody."""
    for method in ("/trackd.v1.FeedService/GuessChanges", "/trackd.v1.IngestService/Append"):
        call: Any = caller.channel.unary_unary(method)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call(b"")
        assert raised.value.code() == grpc.StatusCode.UNIMPLEMENTED


# Metrics.


async def test_metrics_have_the_names_they_should_have(
    server: ServerProcess, caller: Caller, waybill: str
) -> None:
    """Calls by method and status, commits and flushes by partition, the loop, the engine's own."""
    await caller.append(scan_event("a", waybill))
    await caller.status(waybill)
    await refused(caller.tracking.GetStatus(GetStatusRequest(waybill_number=f"{waybill}-0")))
    samples = await asyncio.to_thread(server.scrape)
    calls = "grpc_server_call_duration_seconds_count"
    append = 'grpc_method="trackd.v1.IngestService/AppendEvents",grpc_status="OK"'
    assert samples[f"{calls}{{{append}}}"] >= 1
    unknown = 'grpc_method="trackd.v1.TrackingService/GetStatus",grpc_status="NOT_FOUND"'
    assert samples[f"{calls}{{{unknown}}}"] >= 1
    names = {name.partition("{")[0] for name in samples}
    of_a_partition = {
        *("trackd_store_events_total", "trackd_store_duplicates_total"),
        *("trackd_store_rejections_total", "trackd_store_commits_total"),
        *("trackd_store_stalls_total", "trackd_store_stalled_seconds_total"),
        *("trackd_store_commit_duration_seconds_bucket", "trackd_store_commit_events_bucket"),
        *("trackd_store_fsync_duration_seconds_bucket", "trackd_store_queued_events"),
        *("trackd_store_durable_position", "trackd_store_planned_position"),
        *("trackd_store_status_checkpoint", "trackd_store_dirty_statuses"),
        "trackd_store_status_cache_bytes",
        *(f"trackd_store_engine_{figure}" for figure in ENGINE_FIGURES),
    }
    of_the_process = {
        *("trackd_loop_lag_seconds_bucket", "trackd_build_info", "trackd_disk_low_space"),
        *("trackd_disk_free_bytes", "process_resident_memory_bytes", "process_cpu_seconds_total"),
        "python_gc_collections_total",
    }
    assert of_a_partition | of_the_process <= names
    for name in of_a_partition:
        labels = {each for each in samples if each.partition("{")[0] == name}
        assert all(any(f'partition="{n}"' in each for each in labels) for n in range(3)), name
    assert not any(waybill in name for name in samples)


async def test_a_commit_is_counted_once(
    server: ServerProcess, caller: Caller, waybill: str
) -> None:
    """Events, duplicates and rejections move by what was answered."""

    async def counted() -> list[float]:
        samples = await asyncio.to_thread(server.scrape)
        return [
            sum(
                value
                for name, value in samples.items()
                if name.startswith(f"trackd_store_{what}_total{{")
            )
            for what in ("events", "duplicates", "rejections")
        ]

    before = await counted()
    await caller.append(
        scan_event("a", waybill), scan_event("b", waybill), scan_event("a", waybill)
    )
    await caller.append(scan_event("a", waybill, remark="other"))
    assert [after - was for after, was in zip(await counted(), before, strict=True)] == [2, 1, 1]


# The end.


async def test_a_server_that_stops_says_so(serve: Serve, waybill: str) -> None:
    """On SIGTERM health is NOT_SERVING, what a stream sent is answered, and the stream is ended."""
    server = serve("--partitions", "1")
    caller = Caller(server.grpc)
    health: Any = HealthStub(caller.channel)
    watch = health.Watch(HealthCheckRequest(service=""))
    assert (await watch.read()).status == HealthCheckResponse.SERVING
    stream = caller.stream()
    for n in range(10):
        await stream.send(f"{n}", scan_event(f"e{n}", waybill))
    await stream.answer()
    stopping = asyncio.ensure_future(asyncio.to_thread(server.stop))
    assert (await watch.read()).status == HealthCheckResponse.NOT_SERVING
    answers, refusal = await stream.refusal()
    assert [answer.accepted for answer in answers] == [1] * len(answers)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "STOPPING")
    assert refusal.retry_after_s
    watch.cancel()
    await caller.channel.close()
    assert await stopping == 0
    again = Caller(serve(data=server.data).grpc)
    assert len(await again.event_ids(waybill)) >= 1 + len(answers)
    await again.channel.close()


async def test_other_loops_and_partitions_of_one_directory(serve: Serve, waybill: str) -> None:
    """What was written under one event loop is read under the other, with the same positions."""
    server = serve("--partitions", "2", "--loop", "asyncio")
    caller = Caller(server.grpc)
    position = (await caller.append(scan_event("a", waybill))).position
    await caller.channel.close()
    assert await asyncio.to_thread(server.stop) == 0
    again = serve("--loop", "uvloop", data=server.data)
    caller = Caller(again.grpc)
    assert (await caller.status(waybill, position)).event_count == 1
    assert (await caller.admin.GetTopology(GetTopologyRequest())).partition_count == 2
    await caller.channel.close()
