"""The page of figures that Prometheus reads: served for as long as a block runs.

Knows neither the figures nor whose they are.
"""

import contextlib
import socket
import threading
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, start_http_server

from trackd.address import Address

_CALL_TIMEOUT_S = 1.0
_ENDED_WITHIN_S = 0.05


@contextlib.contextmanager
def metrics_page(address: Address, registry: CollectorRegistry) -> Iterator[Address]:
    """Serves the registry's figures at the address; yields it with the port that it came to be.

    OSError if the address is taken. When the block ends nobody listens there any more.
    """
    server, thread = start_http_server(address.port, address.host, registry)
    try:
        yield address._replace(port=server.server_port)
    finally:
        ending = threading.Thread(target=server.shutdown)
        ending.start()
        # It looks for the end twice a second, and after every call: a call spares the wait.
        while ending.is_alive():
            with contextlib.suppress(OSError):
                socket.create_connection(
                    (address.host, server.server_port), _CALL_TIMEOUT_S
                ).close()
            ending.join(_ENDED_WITHIN_S)
        server.server_close()
        thread.join()
