"""The page of figures: there while its block runs, and nobody listens afterwards."""

import socket
import urllib.request

import pytest
from prometheus_client import CollectorRegistry, Gauge

from trackd.address import Address
from trackd.metrics_page import metrics_served


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_it_is_there_while_its_block_runs(host: str) -> None:
    """On every address of the machine too; the port is free for the next one at once."""
    registry = CollectorRegistry()
    Gauge("parcels", "Of the test.", registry=registry).set(7)
    port = 0
    for _ in range(2):
        with metrics_served(Address(host, port), registry) as page:
            port = page.port
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                assert b"parcels 7.0" in answer.read()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=10)


def test_a_taken_address_is_told() -> None:
    """With its name."""
    registry = CollectorRegistry()
    with (
        metrics_served(Address("127.0.0.1", 0), registry) as page,
        pytest.raises(OSError, match="in use"),
        metrics_served(page, registry),
    ):
        pass
