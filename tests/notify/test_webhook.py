"""One webhook: what it carries, who can verify it, and what each kind of answer means."""

import asyncio
import time
from collections.abc import AsyncIterator

import orjson
import pytest
from cloudevents.core.formats.json import JSONFormat
from standardwebhooks import Webhook, WebhookVerificationError

from tests.notify import receiver as receivers
from tests.notify.changes import OLD_SECRET, PERSONAL, SECRET, delivered_change, target
from tests.notify.receiver import Heard, Receiver, answering, receiving
from trackd.notify.outcome import Notification, Outcome, Verdict
from trackd.notify.payload import PAYLOAD_BYTES_MAX, body_of, webhook_id
from trackd.notify.webhook import WebhookOptions, WebhookSender
from trackd.v1.feed_pb2 import Change
from trackd.v1.notification_pb2 import Envelope
from trackd.v1.vocabulary_pb2 import Milestone

_NOTIFICATION = Notification(id="msg_1", change=delivered_change())


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A receiver of the test's own."""
    async with receiving() as started:
        yield started


@pytest.fixture
async def sender() -> AsyncIterator[WebhookSender]:
    """A sender that may reach loopback and is soon impatient."""
    made = WebhookSender(
        WebhookOptions(
            connect_timeout_s=0.5, total_timeout_s=1, answer_bytes_max=65_536, allow_local=True
        )
    )
    yield made
    await made.close()


async def test_the_reference_library_verifies_what_was_sent(
    receiver: Receiver, sender: WebhookSender
) -> None:
    """Standard Webhooks: id, time and body are signed; none of them can be changed."""
    outcome = await sender.send(target(receiver.url("/")), _NOTIFICATION)
    assert outcome == Outcome(verdict=Verdict.DELIVERED, status_code=204)
    (heard,) = receiver.heard
    assert heard.headers["content-type"] == "application/json"
    verifier = Webhook(SECRET)
    told = verifier.verify(heard.body, heard.headers)
    assert told["type"] == "shipment.milestone"
    assert told["data"]["milestone"] == "DELIVERED"
    assert abs(int(heard.headers["webhook-timestamp"]) - time.time()) < 60
    for name, other in (("webhook-id", "msg_2"), ("webhook-timestamp", str(int(time.time()) - 5))):
        with pytest.raises(WebhookVerificationError):
            verifier.verify(heard.body, heard.headers | {name: other})
    with pytest.raises(WebhookVerificationError):
        verifier.verify(heard.body + b" ", heard.headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(OLD_SECRET).verify(heard.body, heard.headers)


async def test_two_secrets_sign_while_one_replaces_the_other(
    receiver: Receiver, sender: WebhookSender
) -> None:
    """A receiver with either of them verifies the same webhook."""
    rotating = target(receiver.url("/"), secrets=(SECRET, OLD_SECRET))
    await sender.send(rotating, _NOTIFICATION)
    (heard,) = receiver.heard
    assert len(heard.headers["webhook-signature"].split(" ")) == 2
    for secret in (SECRET, OLD_SECRET):
        Webhook(secret).verify(heard.body, heard.headers)


async def test_every_attempt_carries_the_same(receiver: Receiver, sender: WebhookSender) -> None:
    """Id and body are those of the change, so a receiver recognises what it has."""
    for _ in range(2):
        await sender.send(target(receiver.url("/")), _NOTIFICATION)
    first, second = receiver.heard
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.body == second.body
    assert receiver.connections == 1, "a connection is used again"


def test_ids_tell_changes_and_endpoints_apart() -> None:
    """And are the same in every notifier."""
    ids = {webhook_id(ep, position) for ep in ("ep_a", "ep_b") for position in ("x/0.1", "x/0.2")}
    assert len(ids) == 4
    assert webhook_id("ep_a", "x/0.1") in ids


async def test_a_cloud_event_is_one(receiver: Receiver, sender: WebhookSender) -> None:
    """The CloudEvents library reads it: the same type and data, and the webhook's id."""
    await sender.send(
        target(receiver.url("/"), envelope=Envelope.ENVELOPE_CLOUDEVENTS), _NOTIFICATION
    )
    (heard,) = receiver.heard
    Webhook(SECRET).verify(heard.body, heard.headers)
    assert heard.headers["content-type"] == "application/cloudevents+json"
    event = JSONFormat().read(None, heard.body)
    standard = orjson.loads(
        body_of(delivered_change(), message_id="msg_1", envelope=Envelope.ENVELOPE_STANDARD)
    )
    assert event.get_id() == heard.headers["webhook-id"]
    assert (event.get_type(), event.get_data()) == (standard["type"], standard["data"])
    assert event.get_subject() == "SF1234567890"
    assert event.get_specversion() == "1.0"


def test_nothing_about_people_leaves() -> None:
    """The body is written from an allow-list: what a scan holds about people stays."""
    for envelope in (Envelope.ENVELOPE_STANDARD, Envelope.ENVELOPE_CLOUDEVENTS):
        body = body_of(delivered_change(), message_id="msg_1", envelope=envelope)
        assert len(body) < PAYLOAD_BYTES_MAX
        assert [text for text in PERSONAL.values() if text.encode() in body] == []
        assert b"39.9" not in body


def test_the_body_of_a_change() -> None:
    """Golden: names as the contract has them, times in UTC."""
    body = body_of(delivered_change(), message_id="m", envelope=Envelope.ENVELOPE_UNSPECIFIED)
    assert orjson.loads(body) == {
        "type": "shipment.milestone",
        "timestamp": "2026-11-06T21:20:00.123Z",
        "data": {
            "waybill_number": "SF1234567890",
            "previous_milestone": "OUT_FOR_DELIVERY",
            "milestone": "DELIVERED",
            "flags": ["DAMAGED"],
            "flags_raised": ["DAMAGED"],
            "flags_cleared": ["DELAYED"],
            "first_occurrence": True,
            "correction": False,
            "event": {
                "code": "DELIVERED",
                "occurred_at": "2026-11-06T21:19:59.005Z",
                "facility_code": "PEK-03",
                "next_facility_code": "PEK-04",
                "reason": "WEATHER",
                "received_by": "LOCKER",
            },
            "event_count": 9,
            "position": "abc/0.17",
        },
    }


def test_the_type_says_what_kind_of_news_it_is() -> None:
    """Corrections first, then milestones, flags, and moves."""

    def kind(change: Change) -> str:
        body = body_of(change, message_id="m", envelope=Envelope.ENVELOPE_STANDARD)
        return str(orjson.loads(body)["type"])

    change = delivered_change()
    change.correction = True
    assert kind(change) == "shipment.corrected"
    change.correction, change.previous_milestone = False, Milestone.MILESTONE_DELIVERED
    assert kind(change) == "shipment.flags"
    del change.flags_raised[:], change.flags_cleared[:]
    assert kind(change) == "shipment.moved"


@pytest.mark.parametrize(
    ("status", "header", "verdict", "after_s"),
    [
        (200, "", Verdict.DELIVERED, None),
        (299, "", Verdict.DELIVERED, None),
        (301, "Location: /other", Verdict.FAILED, None),
        (307, "Location: /other", Verdict.FAILED, None),
        (400, "", Verdict.FAILED, None),
        (404, "", Verdict.FAILED, None),
        (410, "", Verdict.GONE, None),
        (429, "Retry-After: 17", Verdict.THROTTLED, 17.0),
        (500, "Retry-After: 17", Verdict.FAILED, None),
        (502, "", Verdict.THROTTLED, None),
        (503, "Retry-After: Wed, 21 Oct 2015 07:28:00 GMT", Verdict.THROTTLED, 0.0),
        (504, "Retry-After: soon", Verdict.THROTTLED, None),
    ],
)
async def test_what_a_status_means(
    receiver: Receiver,
    sender: WebhookSender,
    *,
    status: int,
    header: str,
    verdict: Verdict,
    after_s: float | None,
) -> None:
    """The table of the contract; a redirect is not followed."""
    receiver.behaviours["/"] = answering(status, *filter(None, [header]))
    outcome = await sender.send(target(receiver.url("/")), _NOTIFICATION)
    assert (outcome.verdict, outcome.status_code) == (verdict, status)
    assert outcome.after_s == after_s
    assert [heard.path for heard in receiver.heard] == ["/"]


@pytest.mark.parametrize(
    ("behaviour", "told"),
    [
        (receivers.hanging, "no answer in time"),
        (receivers.trickling, "no answer in time"),
        (receivers.resetting, "the connection was closed before an answer"),
        (receivers.babbling, "the answer is not HTTP"),
        (receivers.flooding_headers, "the answer is not HTTP"),
        (receivers.announcing, "interim answers (1xx) without end"),
    ],
)
async def test_a_receiver_that_misbehaves_costs_one_attempt(
    receiver: Receiver, sender: WebhookSender, behaviour: receivers.Behaviour, told: str
) -> None:
    """It ends within the bounds, as a failure with a name, and the next attempt works."""
    receiver.behaviours["/"] = behaviour
    outcome = await sender.send(target(receiver.url("/")), _NOTIFICATION)
    assert (outcome.verdict, outcome.status_code) == (Verdict.FAILED, 0)
    assert outcome.error == told
    assert (await sender.send(target(receiver.url("/ok")), _NOTIFICATION)).status_code == 204


async def test_an_answer_that_is_announced_counts(
    receiver: Receiver, sender: WebhookSender
) -> None:
    """The last one does; on one connection, which goes on."""

    async def announced(_: Heard, writer: asyncio.StreamWriter) -> bool:
        writer.write(b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n")
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        return True

    receiver.behaviours["/"] = announced
    for _ in range(20):
        outcome = await sender.send(target(receiver.url("/")), _NOTIFICATION)
        assert (outcome.verdict, outcome.status_code) == (Verdict.DELIVERED, 204)
    assert receiver.connections == 1


async def test_a_kept_connection_that_is_closed_costs_no_attempt(
    receiver: Receiver, sender: WebhookSender
) -> None:
    """Each of these is good for one answer, and says so by breaking."""
    served: set[asyncio.StreamWriter] = set()

    async def once(_: Heard, writer: asyncio.StreamWriter) -> bool:
        if writer in served:
            return await receivers.resetting(_, writer)
        served.add(writer)
        return await answering(204)(_, writer)

    receiver.behaviours["/"] = once
    for _ in range(5):
        outcome = await sender.send(target(receiver.url("/")), _NOTIFICATION)
        assert (outcome.verdict, outcome.error) == (Verdict.DELIVERED, "")
    assert receiver.connections == 5


async def test_a_success_with_an_endless_body_is_a_success(
    receiver: Receiver, sender: WebhookSender
) -> None:
    """No more than the bound is read of it, and its connection is not used again."""
    receiver.behaviours["/"] = receivers.flooding
    for _ in range(2):
        outcome = await sender.send(target(receiver.url("/")), _NOTIFICATION)
        assert outcome.verdict is Verdict.DELIVERED
    assert receiver.connections == 2


async def test_nobody_there(sender: WebhookSender) -> None:
    """A refused connection is a failure like any other."""
    server = await asyncio.start_server(lambda _, __: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    outcome = await sender.send(target(f"http://127.0.0.1:{port}/"), _NOTIFICATION)
    assert outcome == Outcome(verdict=Verdict.FAILED, error="the connection was refused")


async def test_a_test_says_that_it_is_one(receiver: Receiver, sender: WebhookSender) -> None:
    """Signed like any other, and about no parcel."""
    await sender.send(target(receiver.url("/")), Notification(id="msg_t", change=None))
    (heard,) = receiver.heard
    assert Webhook(SECRET).verify(heard.body, heard.headers)["type"] == "trackd.test"
