"""The page of a process's figures, over HTTP for as long as a block runs.

Knows nothing of what is on it.
"""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from prometheus_client import CollectorRegistry, start_http_server

from trackd.address import Address, cannot_listen

_CALL_TIMEOUT_S = 1.0
_ENDED_WITHIN_S = 0.05


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
        ending = threading.Thread(target=server.shutdown)
        ending.start()
        # It looks for the end twice a second, and after every call: a call spares the wait.
        called = (address.host, server.server_port)
        while ending.is_alive():
            with suppress(OSError):
                socket.create_connection(called, _CALL_TIMEOUT_S).close()
            ending.join(_ENDED_WITHIN_S)
        server.server_close()
        thread.join()
