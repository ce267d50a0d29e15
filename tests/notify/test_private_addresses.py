"""No webhook reaches a private address, by any road: spelling, name, redirect or rebinding."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from tests.notify.changes import delivered_change, target
from tests.notify.receiver import Receiver, answering, receiving
from trackd.endpoint_url import UnusableUrl, address_allowed, webhook_url
from trackd.notify import resolver as resolving
from trackd.notify.outcome import Notification, Verdict
from trackd.notify.resolver import AddressRefused, CheckedResolver, CheckedSocket
from trackd.notify.webhook import WebhookOptions, WebhookSender

REFUSED_URLS = [
    # This machine, by every spelling.
    "https://127.0.0.1/",
    "https://127.0.0.1:8443/",
    "https://127.1/",
    "https://127.0.1/",
    "https://127.255.255.254/",
    "https://0.0.0.0/",
    "https://0/",
    "https://0x7f000001/",
    "https://0x7f.0.0.1/",
    "https://0X7F.1/",
    "https://0177.0.0.1/",
    "https://00000177.1/",
    "https://017700000001/",
    "https://2130706433/",
    "https://2130706433./",
    "https://127.0.0.1./",
    "https://localhost/",
    "https://localhost./",
    "https://LOCALHOST/",
    "https://api.localhost/",
    "https://localhost.localdomain/",
    "https://[::1]/",
    "https://[::]/",
    "https://[0:0:0:0:0:0:0:1]/",
    "https://[::ffff:127.0.0.1]/",
    "https://[::ffff:7f00:1]/",
    "https://[0:0:0:0:0:ffff:127.0.0.1]/",
    "https://[::127.0.0.1]/",
    # Networks inside.
    "https://10.0.0.1/",
    "https://10.1/",
    "https://172.16.0.1/",
    "https://172.31.255.255/",
    "https://192.168.1.1/",
    "https://3232235777/",
    "https://0300.0250.1.1/",
    "https://100.64.0.1/",
    "https://198.18.0.1/",
    "https://[fc00::1]/",
    "https://[fd00:ec2::254]/",
    "https://[fec0::1]/",
    "https://[fe80::1]/",
    "https://[fe80::1%25eth0]/",
    "https://[::ffff:10.0.0.1]/",
    "https://[::ffff:192.168.0.1]/",
    "https://[64:ff9b::10.0.0.1]/",
    "https://[64:ff9b::7f00:1]/",
    "https://[64:ff9b:1::1]/",
    "https://[2002:7f00:1::]/",
    "https://[2002:a00:1::1]/",
    "https://[2001:0:5ef5:79fd::1]/",
    "https://printer.local/",
    "https://db.internal/",
    "https://router.home.arpa/",
    "https://intranet/",
    # Metadata of clouds.
    "https://169.254.169.254/latest/meta-data/",
    "https://2852039166/",
    "https://0xa9fea9fe/",
    "https://[::ffff:169.254.169.254]/",
    "https://[64:ff9b::a9fe:a9fe]/",
    "https://100.100.100.200/",
    "https://192.0.0.192/",
    "https://168.63.129.16/",
    "https://metadata.google.internal/",
    # Not an address of one machine.
    "https://224.0.0.1/",
    "https://255.255.255.255/",
    "https://240.0.0.1/",
    "https://[ff02::1]/",
    "https://192.88.99.1/",
    # Ways to mean another host than the one that is read.
    "https://user@10.0.0.1/",
    "https://hooks.example.com@127.0.0.1/",
    "https://user:secret@hooks.example.com/",
    "https://@hooks.example.com/",
    "https://hooks.example.com\\@127.0.0.1/",
    "https://hooks.example.com#@127.0.0.1/",
    "https://127.0.0.1%00.example.com/",
    "https://127.0.0.1%2eexample.com/",
    "https://hooks.example.com /",
    "https://hooks.example.com\t/",
    "https://hooks.example.com\r\nHost: 127.0.0.1/",
    "https://１２７.0.0.1/",
    "https://127。0。0。1/",
    "https://ⓛocalhost/",
    "https://hooks.example.com./",
    "https://-hooks.example.com/",
    "https://hooks..example.com/",
    "https:///path",
    "https://",
    "https:hooks.example.com",
    "//hooks.example.com/",
    "hooks.example.com",
    "",
    # Other schemes and ports.
    "http://hooks.example.com/",
    "http://127.0.0.1/",
    "ftp://hooks.example.com/",
    "file:///etc/passwd",
    "gopher://127.0.0.1:6379/_INFO",
    "unix:///var/run/docker.sock",
    "javascript:alert(1)",
    "https://hooks.example.com:22/",
    "https://hooks.example.com:80/",
    "https://hooks.example.com:6443/",
    "https://hooks.example.com:65536/",
    "https://hooks.example.com:0/",
    "https://hooks.example.com:-443/",
    "https://hooks.example.com/" + "x" * 2_000,
]
ALLOWED_URLS = [
    "https://hooks.example.com/",
    "https://hooks.example.com:8443/trackd?shop=7",
    "https://8.8.8.8/",
    "https://[2606:4700::1111]/",
    "https://xn--fiq228c.example/hook",
    "https://10.0.0.1.hooks.example.com/",
    "https://hooks.example.com/%E4%BD%A0",
]
_NOTIFICATION = Notification(id="msg_1", change=delivered_change())


def make_sender(*, allow_local: bool) -> WebhookSender:
    """A sender with short bounds."""
    return WebhookSender(
        WebhookOptions(
            connect_timeout_s=1,
            total_timeout_s=2,
            answer_bytes_max=1 << 16,
            allow_local=allow_local,
        )
    )


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """Stands for everything inside."""
    async with receiving() as started:
        yield started


@pytest.fixture
def no_sockets(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Every socket that a webhook was given."""
    made: list[object] = []
    ours = CheckedSocket.__call__

    def counted(self: CheckedSocket, info: resolving.AddrInfo) -> socket.socket:
        made.append(info[4])
        try:
            return ours(self, info)
        except AddressRefused:
            made.pop()
            raise

    monkeypatch.setattr(CheckedSocket, "__call__", counted)
    return made


def test_there_are_enough_of_them() -> None:
    """As many spellings as the promise names, each once."""
    assert len(set(REFUSED_URLS)) == len(REFUSED_URLS) >= 60


@pytest.mark.parametrize("url", REFUSED_URLS)
def test_no_endpoint_may_be_there(url: str) -> None:
    """Refused when the endpoint is made, with a reason."""
    with pytest.raises(UnusableUrl, match=r"\w+"):
        webhook_url(url, allow_local=False)


async def test_the_notifier_connects_to_none_of_them(no_sockets: list[object]) -> None:
    """Even if the server had let them pass: no look-up, no socket."""
    sender = make_sender(allow_local=False)
    for url in REFUSED_URLS:
        outcome = await sender.send(target(url), _NOTIFICATION)
        assert outcome.verdict is Verdict.FAILED, url
        assert outcome.error.startswith("the URL cannot be used"), url
    await sender.close()
    assert no_sockets == []


@pytest.mark.parametrize("url", ALLOWED_URLS)
def test_what_is_outside_is_allowed(url: str) -> None:
    """A public name or address, port 443 or 8443."""
    assert str(webhook_url(url, allow_local=False)) == url


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:1/", "http://localhost:9/x", "https://[::1]:8080/", "http://127.9.9.9/"],
)
def test_loopback_needs_the_unsafe_flag(url: str) -> None:
    """And the flag opens loopback only: not a name, not a network inside."""
    with pytest.raises(UnusableUrl):
        webhook_url(url, allow_local=False)
    webhook_url(url, allow_local=True)
    for other in ("http://10.0.0.1/", "http://hooks.example.com/", "https://192.168.0.1/"):
        with pytest.raises(UnusableUrl):
            webhook_url(other, allow_local=True)


@pytest.mark.parametrize("text", ["", "hooks.example.com", "127.0.0.1:80", "0x7f.1", "/var/x.sock"])
def test_what_is_no_address_is_not_connected_to(text: str) -> None:
    """The last gate wants an address and nothing else."""
    assert not address_allowed(text, allow_local=True)


async def test_a_name_that_leads_inside(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, no_sockets: list[object]
) -> None:
    """Whatever a public name resolves to is checked: one inside address among many spoils all."""
    answers: list[list[str]] = [
        ["127.0.0.1"], ["10.0.0.5"], ["::1"], ["::ffff:127.0.0.1"], ["64:ff9b::7f00:1"],
        ["8.8.8.8", "127.0.0.1"], ["2606:4700::1111", "fd00::1"], ["169.254.169.254"],
    ]  # fmt: skip

    def looked_up(host: str, port: int, *_: object, **__: object) -> list[resolving.AddrInfo]:
        return [
            (
                socket.AF_INET6 if ":" in address else socket.AF_INET,
                socket.SOCK_STREAM,
                6,
                "",
                (address, port),
            )
            for address in answer
        ]

    monkeypatch.setattr(socket, "getaddrinfo", looked_up)
    for answer in answers:
        sender = make_sender(allow_local=True)
        outcome = await sender.send(target("https://hooks.example.com:8443/"), _NOTIFICATION)
        await sender.close()
        assert outcome.error == "the address is inside a network", answer
    assert no_sockets == []
    assert receiver.connections == 0


async def test_a_name_that_changes_its_mind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rebinding: public when it is checked, loopback when it would be looked up again.

    It is looked up once, and what was checked is what is connected to.
    """
    asked: list[str] = []
    tried: list[object] = []

    def looked_up(host: str, port: int, *_: object, **__: object) -> list[resolving.AddrInfo]:
        asked.append(host)
        address = "192.0.43.8" if len(asked) == 1 else "127.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    def not_connected(self: CheckedSocket, info: resolving.AddrInfo) -> socket.socket:
        tried.append(info[4])
        raise OSError("this test stays at home")

    monkeypatch.setattr(socket, "getaddrinfo", looked_up)
    monkeypatch.setattr(CheckedSocket, "__call__", not_connected)
    sender = make_sender(allow_local=False)
    url = "https://rebinding.example.com/"
    first = await sender.send(target(url), _NOTIFICATION)
    await sender.close()
    assert (first.error, asked) == ("no connection", ["rebinding.example.com"])
    assert tried == [("192.0.43.8", 443)]
    # The next look-up is checked like the first.
    sender = make_sender(allow_local=False)
    second = await sender.send(target(url), _NOTIFICATION)
    await sender.close()
    assert second.error == "the address is inside a network"
    assert len(tried) == 1


async def test_a_resolver_that_is_fooled_is_not_enough(receiver: Receiver) -> None:
    """The socket is a gate of its own: an inside address that a look-up let pass ends there."""
    gate = CheckedSocket(allow_local=False)
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::ffff:10.0.0.1")):
        with pytest.raises(AddressRefused):
            gate((family, socket.SOCK_STREAM, 6, "", (address, receiver.port)))
    with pytest.raises(AddressRefused):
        gate((socket.AF_UNIX, socket.SOCK_STREAM, 0, "", "/run/x.sock"))
    gate((socket.AF_INET, socket.SOCK_STREAM, 6, "", ("8.8.8.8", 443))).close()


async def test_a_redirect_inside_leads_nowhere(receiver: Receiver) -> None:
    """3xx fails whatever its Location says."""
    sender = make_sender(allow_local=True)
    for status in (301, 302, 303, 307, 308):
        for place in ("/inside", receiver.url("/inside"), "http://169.254.169.254/"):
            receiver.behaviours["/hook"] = answering(status, f"Location: {place}")
            outcome = await sender.send(target(receiver.url("/hook")), _NOTIFICATION)
            assert (outcome.verdict, outcome.status_code) == (Verdict.FAILED, status)
    await sender.close()
    assert receiver.at("/inside") == []
    assert len(receiver.heard) == 15


async def test_localhost_is_looked_up_for_itself_only() -> None:
    """Under the unsafe flag `localhost` resolves; without it its addresses are inside."""
    allowed, refused = CheckedResolver(allow_local=True), CheckedResolver(allow_local=False)
    found = await allowed.resolve("localhost", 80, socket.AF_INET)
    assert [each["host"] for each in found] == ["127.0.0.1"]
    with pytest.raises(AddressRefused):
        await refused.resolve("localhost", 80, socket.AF_INET)
    await asyncio.gather(allowed.close(), refused.close())
