"""Named subscriptions over two workers: what holds in one process holds here, whoever is asked."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.cluster.test_workers import own_addresses
from tests.harness.oracle import expect_sound
from tests.harness.server import ServerProcess
from tests.wire.caller import Caller
from tests.wire.conftest import waybill
from tests.wire.test_subscriptions import (
    name,
    stub,
    test_a_consumer_that_says_nonsense_is_told,
    test_a_deleted_subscription_ends_its_consumers,
    test_a_field_out_of_its_range_is_named,
    test_a_filter_and_a_start_are_kept,
    test_a_waybill_goes_in_order_and_others_pass_it_by,
    test_parked_changes_are_listed_redriven_and_dropped,
    test_settings_come_back_with_their_defaults,
    test_what_is_unacknowledged_comes_again,
)
from trackd import exits

__all__ = [
    "name",
    "stub",
    "test_a_consumer_that_says_nonsense_is_told",
    "test_a_deleted_subscription_ends_its_consumers",
    "test_a_field_out_of_its_range_is_named",
    "test_a_filter_and_a_start_are_kept",
    "test_a_waybill_goes_in_order_and_others_pass_it_by",
    "test_parked_changes_are_listed_redriven_and_dropped",
    "test_settings_come_back_with_their_defaults",
    "test_what_is_unacknowledged_comes_again",
    "waybill",
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Two workers over four partitions, for the tests that leave it as they found it."""
    data = tmp_path_factory.mktemp("shared") / "data"
    server = ServerProcess(data, "--partitions", "4", "--workers", "2").start()
    yield server
    assert server.stop() == exits.DONE
    expect_sound(server.data)


@pytest.fixture(params=[0, 1], ids=["asking the leader", "asking another worker"])
async def caller(server: ServerProcess, request: pytest.FixtureRequest) -> AsyncIterator[Caller]:
    """A caller of the worker that leads, or of the other one."""
    one = Caller(own_addresses(server)[request.param])
    yield one
    await one.channel.close()
