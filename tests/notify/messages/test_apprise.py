"""Messages through apprise reach a real web server and a real mail server, or are not lost."""

import asyncio
import logging
import socket
import threading
import time
from email import message_from_bytes, policy

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session
from apprise.plugins.wecombot import NotifyWeComBot

from tests.notify.messages.conftest import WAYBILL, WebServer, change, notification, target
from trackd.message_url import SCHEMES
from trackd.notify.messages.sender import MessageOptions, MessageSender
from trackd.notify.outcome import Outcome, Verdict

LOCAL = MessageOptions(
    schemes=(*SCHEMES, "json"), allow_local=True, tracking_link="https://example.com/{waybill}"
)


async def send(url: str, options: MessageOptions = LOCAL, **settings: str) -> Outcome:
    """One message by a sender of its own."""
    sender = MessageSender(options)
    try:
        return await sender.send(target(url, **settings), notification(change()))
    finally:
        await sender.close()


def json_url(web: WebServer) -> str:
    """The web server, as apprise's JSON service."""
    return f"json://{web.place}/hook"


async def test_a_message_arrives_as_it_is_worded(web: WebServer) -> None:
    """Subject and body, in the endpoint's language, by one request."""
    outcome = await send(json_url(web))
    assert outcome.verdict is Verdict.DELIVERED
    (received,) = web.received
    assert received.document["title"] == f"运单 {WAYBILL}：派送中"
    assert f"https://example.com/{WAYBILL}" in received.document["message"]
    await send(json_url(web), language="en", template="short")
    assert web.received[1].document["title"] == f"Parcel {WAYBILL}: Out for delivery"


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (200, Verdict.DELIVERED),
        (302, Verdict.FAILED),
        (400, Verdict.HOPELESS),
        (401, Verdict.FAILED),
        (404, Verdict.FAILED),
        (410, Verdict.GONE),
        (422, Verdict.HOPELESS),
        (429, Verdict.THROTTLED),
        (500, Verdict.FAILED),
        (503, Verdict.THROTTLED),
    ],
)
async def test_what_an_answer_comes_to(web: WebServer, status: int, verdict: Verdict) -> None:
    """Its status is told; a redirect is not followed, and a pause is as long as was asked."""
    web.answers = [(status, {"Retry-After": "17", "Location": "http://127.0.0.1:1/"}, b"{}")]
    outcome = await send(json_url(web))
    assert (outcome.verdict, outcome.status_code) == (verdict, status)
    assert outcome.after_s == (17.0 if verdict is Verdict.THROTTLED else None)
    assert len(web.received) == 1


@pytest.mark.parametrize(
    ("code", "verdict"),
    [
        (0, Verdict.DELIVERED),
        (45009, Verdict.THROTTLED),
        (93000, Verdict.GONE),
        (40008, Verdict.FAILED),
    ],
)
async def test_a_robot_that_refuses_with_status_200_is_believed(
    web: WebServer, monkeypatch: pytest.MonkeyPatch, code: int, verdict: Verdict
) -> None:
    """WeCom's robots answer 200 whatever happens: a message over their rate is not lost."""
    monkeypatch.setattr(NotifyWeComBot, "notify_url", f"{web.url}/send?key={{key}}")
    web.answers = [(200, {}, b'{"errcode": %d, "errmsg": "whatever"}' % code)]
    outcome = await send("wecombot://the-key")
    assert outcome.verdict is verdict
    assert web.received[0].path == "/send?key=the-key"
    assert WAYBILL in web.received[0].document["text"]["content"]


async def test_nobody_there_is_a_failure_to_try_again() -> None:
    """Neither parked nor lost."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    outcome = await send(f"json://127.0.0.1:{port}/")
    assert outcome.verdict is Verdict.FAILED


async def test_a_name_that_leads_inside_a_network_is_not_connected_to(
    web: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However good it looked before: the connection itself is refused, at the last moment."""
    port = int(web.place.rpartition(":")[2])

    def lies(host: str, *more: object, **named: object) -> list[tuple[object, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", lies)
    strict = MessageOptions(schemes=("json",))
    outcome = await send(f"json://hooks.example.com:{port}/hook", strict)
    assert outcome.verdict is Verdict.HOPELESS
    assert outcome.error == "the host is inside a network"
    assert web.received == []


async def test_a_scheme_that_is_no_longer_allowed_is_not_used(web: WebServer) -> None:
    """An endpoint made under other settings is parked, not told."""
    outcome = await send(json_url(web), MessageOptions(allow_local=True))
    assert outcome.verdict is Verdict.HOPELESS
    assert web.received == []


async def test_nothing_blocks_the_event_loop(web: WebServer) -> None:
    """While every thread waits for a server that keeps silent, the loop goes on; and it ends."""
    web.hold = threading.Event()
    sender = MessageSender(MessageOptions(schemes=("json",), allow_local=True, threads=4))
    sends = [
        asyncio.create_task(
            sender.send(target(json_url(web)), notification(change(waybill=f"W{n}")))
        )
        for n in range(8)
    ]
    await web.until(4)
    assert not any(task.done() for task in sends)
    web.hold.set()
    outcomes = await asyncio.gather(*sends)
    assert {outcome.verdict for outcome in outcomes} == {Verdict.DELIVERED}
    assert len(web.received) == 8
    await sender.close()


async def test_one_endpoint_does_not_take_all_threads(web: WebServer) -> None:
    """What hangs holds up its own endpoint; another one is told meanwhile."""
    web.hold = threading.Event()
    sender = MessageSender(MessageOptions(schemes=("json",), allow_local=True, threads=6))
    hanging = [
        asyncio.create_task(
            sender.send(target(json_url(web)), notification(change(waybill=f"W{n}")))
        )
        for n in range(10)
    ]
    await web.until(4)
    other = target(f"json://{web.place}/other")
    other.endpoint.id = "ep_2"
    telling = asyncio.create_task(sender.send(other, notification(change())))
    await web.until(1, "/other")
    assert len(web.received) == 5
    web.hold.set()
    await asyncio.gather(*hanging, telling)
    await sender.close()


async def test_a_server_that_drips_is_hung_up_on(web: WebServer) -> None:
    """A byte a moment would outlast every time-out of the library; the thread comes free."""
    stop = threading.Event()

    def drip(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
            while not stop.is_set():
                try:
                    connection.sendall(b"a")
                except OSError:
                    return
                time.sleep(0.01)

    options = MessageOptions(schemes=("json",), allow_local=True, threads=1, timeout_s=0.3)
    sender = MessageSender(options)
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=drip, args=(server,))
        thread.start()
        slow = target(f"json://127.0.0.1:{server.getsockname()[1]}/")
        outcome = await sender.send(slow, notification(change()))
        assert (outcome.verdict, outcome.error) == (Verdict.FAILED, "no answer in time")
        # The only thread is free again.
        outcome = await sender.send(target(json_url(web)), notification(change(waybill="NEXT")))
        assert outcome.verdict is Verdict.DELIVERED
        stop.set()
        thread.join()
    await sender.close()


async def test_no_credential_is_logged_or_told(
    web: WebServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Not by us, not by apprise, not by the libraries below it, at any level."""
    caplog.set_level(logging.DEBUG)
    web.answers = [(500, {}, b"HUNTER2")]
    outcome = await send(f"json://me:HUNTER2@{web.place}/HUNTER2?token=HUNTER2")
    assert outcome.verdict is Verdict.FAILED
    assert web.received
    assert "HUNTER2" not in outcome.error
    assert "HUNTER2" not in caplog.text


class Mailbox:
    """A mail server's other end."""

    def __init__(self) -> None:
        self.received: list[Envelope] = []
        self.answer = "250 OK"

    async def handle_RCPT(  # noqa: N802  the library's name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Takes every recipient, or none."""
        if self.answer.startswith("250"):
            envelope.rcpt_tos.append(address)
        return self.answer

    async def handle_DATA(  # noqa: N802  the library's name
        self, server: SMTP, session: Session, envelope: Envelope
    ) -> str:
        """Keeps the mail."""
        self.received.append(envelope)
        return "250 OK"


async def test_a_mail_arrives_with_its_subject() -> None:
    """To the recipient and from the sender of the URL; a refused recipient is a failure."""
    mailbox = Mailbox()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    controller = Controller(mailbox, hostname="127.0.0.1", port=port)
    controller.start()
    try:
        url = f"mailtos://127.0.0.1:{port}?to=li@example.com&from=parcels@example.com&mode=insecure"
        assert (await send(url)).verdict is Verdict.DELIVERED
        (envelope,) = mailbox.received
        assert envelope.rcpt_tos == ["li@example.com"]
        assert envelope.mail_from == "parcels@example.com"
        mail = message_from_bytes(envelope.original_content or b"", policy=policy.default)
        assert mail["Subject"] == f"运单 {WAYBILL}：派送中"
        body = mail.get_body(("plain", "html"))
        assert body is not None
        assert "时间：11月22日 12:00" in body.get_content()
        mailbox.answer = "550 no such mailbox"
        assert (await send(url)).verdict is Verdict.FAILED
    finally:
        controller.stop()
