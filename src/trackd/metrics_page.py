"""The page of a process's figures, over HTTP for as long as a block runs.

Knows nothing of what is on it.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, start_http_server

from trackd.address import Address, cannot_listen


@contextmanager
def metrics_served(address: Address, registry: CollectorRegistry) -> Iterator[Address]:
    """Where it is served: the address, with the port that the system gave for port 0.

    Raises OSError, which names the address, if that is taken or not this machine's.
    """
    try:
        server, thread = start_http_server(address.port, address.host, registry)
    except OSError as error:
        raise cannot_listen(address, error) from error
    try:
        yield address._replace(port=server.server_port)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
