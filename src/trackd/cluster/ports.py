"""Ports that stay ours while a worker is being started again.

A reserved port is bound with SO_REUSEPORT and never listened on: the kernel gives connections only
to the workers that listen there too, and refuses them while none does. SO_REUSEPORT would let a
second server join unnoticed and take a share of the connections, so a port is looked at without it
first, and a name that only one process can hold closes the moment between the two.
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from trackd.address import Address, cannot_listen

_UNSPECIFIED = {"0.0.0.0", "::"}  # noqa: S104 (recognised, not bound)
# Nothing is sent there (TEST-NET-1): the system only says from which address it would be.
_FAR_AWAY = ("192.0.2.1", 9)


@contextmanager
def reserved(address: Address) -> Iterator[Address]:
    """The address with its port, which is ours until the block ends. Port 0 takes a free one.

    Raises OSError, which names the address, if somebody else listens there.
    """
    sockets: list[socket.socket] = []
    try:
        port = address.port
        for family, place in _places(address.host):
            if port:
                _expect_free(family, (place, port))
            taken = socket.socket(family, socket.SOCK_STREAM)
            sockets.append(taken)
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            taken.bind((place, port))
            port = taken.getsockname()[1]
        sockets.append(_only_holder(address.host, port))
    except OSError as error:
        _close(sockets)
        raise cannot_listen(address, error) from error
    try:
        yield address._replace(port=port)
    finally:
        _close(sockets)


def reachable_host(host: str) -> str:
    """The host under which others reach what listens on `host`."""
    if host not in _UNSPECIFIED:
        return host
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(_FAR_AWAY)
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


def near_host(host: str) -> str:
    """The host under which this machine itself reaches what listens on `host`."""
    return "127.0.0.1" if host in _UNSPECIFIED else host


def _close(sockets: list[socket.socket]) -> None:
    for each in sockets:
        each.close()


def _places(host: str) -> list[tuple[socket.AddressFamily, str]]:
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys((family, str(where[0])) for family, _, _, _, where in found))


def _expect_free(family: socket.AddressFamily, place: tuple[str, int]) -> None:
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # Else the last connections of a server that has just stopped would count as one.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(place)


def _only_holder(host: str, port: int) -> socket.socket:
    """A name in Linux's abstract namespace: one process has it, and its end frees it."""
    holder = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        holder.bind(f"\0trackd/{host}:{port}")
    except OSError:
        holder.close()
        raise
    return holder
