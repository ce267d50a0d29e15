"""How a webhook finds its address: looked up once, checked, and then connected to, not looked up
again.

A name that answers with a public address when it is checked and with a private one when it is
connected to (DNS rebinding) gets nowhere: what is handed to the connection is the checked address,
and the socket itself refuses every other.
"""

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult

from trackd.endpoint_url import address_allowed, is_local

# getaddrinfo blocks a thread for as long as the name's servers keep silent; more look-ups than
# these wait for each other, and for no longer than a connection may take.
RESOLVER_THREADS = 32

AddrInfo = tuple[Any, Any, int, str, Any]


class AddressRefused(OSError):
    """The name leads to an address that no webhook may connect to."""


class CheckedResolver(AbstractResolver):
    """Looks names up; answers only if every address of the answer may be connected to.

    One bad address spoils the whole answer: a name that points outside and inside is an attack or
    a mistake, and a webhook that works every other time is worse than none.
    """

    def __init__(self, *, allow_local: bool) -> None:
        """allow_local: `localhost` may be this machine."""
        self._allow_local = allow_local
        self._threads = ThreadPoolExecutor(RESOLVER_THREADS, thread_name_prefix="resolver")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The addresses of a name. Raises AddressRefused, or OSError where there are none."""
        loop = asyncio.get_running_loop()
        infos = await loop.run_in_executor(self._threads, _look_up, host, port, family)
        allow_local = self._allow_local and is_local(host)
        results = []
        for found_family, _, protocol, _, address in infos:
            if not address_allowed(str(address[0]), allow_local=allow_local):
                raise AddressRefused("the name leads to an address inside a network")
            results.append(
                ResolveResult(
                    hostname=host,
                    host=str(address[0]),
                    port=port,
                    family=found_family,
                    proto=protocol,
                    flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
                )
            )
        if not results:
            raise OSError("the name has no address")
        return results

    async def close(self) -> None:
        """Look-ups that are under way end by themselves; nobody waits for them."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class CheckedSocket:
    """Makes the sockets of connections: the last gate, which an address in a URL passes too."""

    def __init__(self, *, allow_local: bool) -> None:
        """allow_local: this machine may be connected to."""
        self._allow_local = allow_local

    def __call__(self, info: AddrInfo) -> socket.socket:
        """A socket for an address. Raises AddressRefused."""
        family, kind, protocol, _, address = info
        if family not in (socket.AF_INET, socket.AF_INET6) or not address_allowed(
            str(address[0]), allow_local=self._allow_local
        ):
            raise AddressRefused("the address is inside a network")
        made = socket.socket(family=family, type=kind, proto=protocol)
        made.setblocking(False)
        return made


def _look_up(host: str, port: int, family: socket.AddressFamily) -> list[AddrInfo]:
    return list(
        socket.getaddrinfo(
            host, port, family=family, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
        )
    )
