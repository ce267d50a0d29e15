"""HOST:PORT as people write it: what to listen on and what to call. Opens and looks up nothing."""

import ipaddress
from typing import NamedTuple

PORT_MAX = 65_535


class Address(NamedTuple):
    """A place to listen on or to call. Port 0 asks the system for a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        """HOST:PORT, or [HOST]:PORT for IPv6."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it; any name but `localhost` counts as reachable."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def cannot_listen(address: Address, error: OSError) -> OSError:
    """The same error, saying where: the system's own does not."""
    return OSError(error.errno, f"{address}: {error.strerror}")


def parse_address(text: str) -> Address:
    """HOST:PORT or [IPV6]:PORT to its parts; ValueError when it is neither."""
    host, colon, port = text.strip().rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if bracketed:
        host = host[1:-1]
    if not colon or not host or (":" in host) != bracketed:
        raise ValueError("must be HOST:PORT, or [HOST]:PORT for IPv6")
    if not (port.isascii() and port.isdigit() and int(port) <= PORT_MAX):
        raise ValueError(f"the port after the last colon must be 0 to {PORT_MAX}")
    return Address(host, int(port))
