"""Where an endpoint may be: the rules for its URL and for the address behind it.

Pure rules, used twice: when an endpoint is made, so that its owner hears of a mistake at once, and
by the notifier for every connection, which is what protects the inside of a network. Nothing here
looks a name up or connects.
"""

import ipaddress
import re
import socket

from yarl import URL

URL_CHARACTERS_MAX = 2_000
PORTS = frozenset({443, 8443})

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# Printable ASCII without a space and a backslash, which some parsers take for a slash. A name in
# another script has to come in its xn-- form: full-width digits and dots are an old disguise.
_PLAIN = re.compile(r"[!-\[\]-~]+")
_NAME = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(\.(?!-)[a-z0-9_-]{1,63}(?<!-))+")
# Names that mean something inside a network only.
_INSIDE = (
    ".localhost", ".local", ".localdomain", ".internal", ".intranet", ".private", ".corp", ".lan",
    ".home", ".home.arpa", ".onion",
)  # fmt: skip

# Global by their registry, and yet not the other side of the internet.
_DENIED = tuple(
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/8",
        "168.63.129.16/32",  # the host of a virtual machine at Azure
        "192.0.0.0/24",  # protocol assignments, and the metadata of Oracle's cloud
        "192.88.99.0/24",  # relays of 6to4
        "240.0.0.0/4",
        "64:ff9b:1::/48",  # NAT64 inside a network
        "100::/64",
        "2001::/23",
        "fec0::/10",
    )
)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_IPV4_COMPATIBLE = ipaddress.IPv6Network("::/96")


class UnusableUrl(ValueError):
    """No endpoint may be there; the message says why."""


def webhook_url(text: str, *, allow_local: bool) -> URL:
    """The URL of a webhook, taken apart by the parser that will connect. Raises UnusableUrl.

    allow_local: http and https to this machine, on any port, are allowed as well.
    """
    if len(text) > URL_CHARACTERS_MAX:
        raise UnusableUrl(f"at most {URL_CHARACTERS_MAX} characters")
    if not _PLAIN.fullmatch(text):
        raise UnusableUrl("printable ASCII only, without spaces and backslashes")
    try:
        url = URL(text, encoded=True)
        host, port = url.raw_host, url.port
    except ValueError:
        raise UnusableUrl("not a URL") from None
    if not host or not url.absolute:
        raise UnusableUrl("must be https://HOST/…")
    if "@" in url.raw_authority or url.user is not None or url.password is not None:
        raise UnusableUrl("no user name and no password in it")
    if url.raw_fragment:
        raise UnusableUrl("no fragment in it")
    if allow_local and is_local(host) and url.scheme in {"http", "https"}:
        return url
    if url.scheme != "https":
        raise UnusableUrl("must be https")
    if port not in PORTS:
        raise UnusableUrl("the port must be 443 or 8443")
    _check_host(host, url.raw_authority)
    return url


def address_allowed(text: str, *, allow_local: bool) -> bool:
    """Whether a webhook may connect to an address; what is no address may not be connected to.

    An address that carries another one (mapped, NAT64, 6to4, Teredo) is as good as both.
    """
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    if allow_local and address.is_loopback:
        return True
    return all(_is_outside(each) for each in (address, *_carried(address)))


def _is_outside(address: _Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        # The registry calls the whole range private; what counts is the address inside.
        return True
    return (
        address.is_global
        and not address.is_multicast
        and not address.is_unspecified
        and not any(address in network for network in _DENIED if network.version == address.version)
    )


def _carried(address: _Address) -> list[_Address]:
    """The IPv4 addresses inside an IPv6 address."""
    if isinstance(address, ipaddress.IPv4Address):
        return []
    carried: list[_Address] = []
    if address.ipv4_mapped:
        carried.append(address.ipv4_mapped)
    if address.sixtofour:
        carried.append(address.sixtofour)
    if address.teredo:
        carried += address.teredo
    if address in _NAT64 or address in _IPV4_COMPATIBLE:
        carried.append(ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF))
    return carried


def _check_host(host: str, authority: str) -> None:
    if "%" in authority:
        raise UnusableUrl("no percent sign in the host")
    try:
        ipaddress.ip_address(host)
    except ValueError:
        pass
    else:
        if not address_allowed(host, allow_local=False):
            raise UnusableUrl("the address is not one of the public internet")
        return
    if _is_number(host):
        raise UnusableUrl("an address is written as four decimal numbers")
    if host.endswith("."):
        raise UnusableUrl("no dot at the end of the host")
    if not _NAME.fullmatch(host.lower()):
        raise UnusableUrl("the host must be a full name, such as hooks.example.com")
    if host.lower().endswith(_INSIDE):
        raise UnusableUrl("the host is a name inside a network")


def _is_number(host: str) -> bool:
    """Whether C's inet_aton, which every resolver asks, takes it for an address, as 0x7f.1."""
    try:
        socket.inet_aton(host.rstrip("."))
    except OSError:
        return False
    return True


def is_local(host: str) -> bool:
    """Whether a host is this machine by name or address, as it is written."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
