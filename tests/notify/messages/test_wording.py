"""Every word can be told, in both languages, and nothing is told that may be personal data."""

from zoneinfo import ZoneInfo

import pytest

from tests.notify.messages.conftest import NOON_MS, WAYBILL, change
from trackd.domain.catalogue import Language, text
from trackd.domain.vocabulary import EventCode, Flag, Milestone, Reason, ReceivedBy
from trackd.message_url import SHORT_TEMPLATE, TEMPLATES
from trackd.notify.messages.news import Kind, UnknownWord, kind_of, news_of
from trackd.notify.messages.wording import Message, local_time, trial_message, worded
from trackd.v1.event_pb2 import GeoPoint, Receipt, ScanEvent
from trackd.v1.feed_pb2 import Change

SHANGHAI = ZoneInfo("Asia/Shanghai")
LANGUAGES = list(Language)


def told(of: Change, language: Language, **more: str) -> Message:
    """The message for a change, as in Shanghai."""
    return worded(news_of(of), language=language, zone=SHANGHAI, **more)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("milestone", [each for each in Milestone if each])
def test_every_milestone_is_told(milestone: Milestone, language: Language) -> None:
    """With the waybill number and the catalogue's word, in every template."""
    for template in TEMPLATES:
        message = told(change(milestone), language, template=template)
        assert WAYBILL in message.subject
        assert text(milestone, language) in message.subject
        assert message.news == text(milestone, language)
        assert "{" not in message.subject + message.body


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("flag", list(Flag))
def test_every_flag_is_told_when_it_is_raised_and_when_it_is_cleared(
    flag: Flag, language: Language
) -> None:
    """And the two do not read the same; with a milestone, the flag is a line of its own."""
    raised = told(change(first=False, raised=(flag,)), language)
    cleared = told(change(first=False, cleared=(flag,)), language)
    word = text(flag, language)
    assert word in raised.subject
    assert word in cleared.subject
    assert raised.subject != cleared.subject
    assert text(Milestone.OUT_FOR_DELIVERY, language) in raised.body
    both = told(change(raised=(flag,)), language)
    assert text(Milestone.OUT_FOR_DELIVERY, language) in both.subject
    assert word in both.body


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("reason", [each for each in Reason if each])
def test_every_reason_is_told(reason: Reason, language: Language) -> None:
    """In the body; an event without one has no such line."""
    given = told(change(Milestone.DELIVERY_ATTEMPT_FAILED, reason=reason), language)
    none = told(change(Milestone.DELIVERY_ATTEMPT_FAILED), language)
    assert text(reason, language) in given.body
    assert len(given.body.splitlines()) == len(none.body.splitlines()) + 1


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("received_by", [each for each in ReceivedBy if each])
def test_who_took_a_delivered_parcel_is_told_by_role(
    received_by: ReceivedBy, language: Language
) -> None:
    """Locker, station, in person; never by name, and not before it is delivered."""
    event = ScanEvent(
        receipt=Receipt(received_by=int(received_by), signer="Li*")  # type: ignore[arg-type]
    )
    delivered = told(change(Milestone.DELIVERED, event=event), language)
    assert text(received_by, language) in delivered.body
    assert "Li*" not in delivered.body
    before = told(change(Milestone.OUT_FOR_DELIVERY, event=event), language)
    assert text(received_by, language) not in before.body


@pytest.mark.parametrize("language", LANGUAGES)
def test_nothing_personal_is_told(language: Language) -> None:
    """Remark, operator, device, signer, exact place and facility stay inside, in every template."""
    event = ScanEvent(
        code=int(EventCode.DELIVERED),  # type: ignore[arg-type]
        facility_code="SECRET-FACILITY",
        next_facility_code="SECRET-NEXT",
        device_id="SECRET-DEVICE",
        operator_id="SECRET-OPERATOR",
        remark="SECRET-REMARK",
        container_number="SECRET-BAG",
        location=GeoPoint(latitude=31.234567, longitude=121.456789),
        receipt=Receipt(signer="SECRET-SIGNER", proof_sha256="SECRET", consent_reference="SECRET"),
        source_system="SECRET",
        attributes={"SECRET": "SECRET"},
    )
    for template in TEMPLATES:
        message = told(change(Milestone.DELIVERED, event=event), language, template=template)
        everything = f"{message.news}{message.subject}{message.body}"
        assert "SECRET" not in everything
        assert "31.23" not in everything


def test_a_message_in_full() -> None:
    """As people read it."""
    of = change(
        Milestone.DELIVERY_ATTEMPT_FAILED,
        raised=(Flag.ADDRESS_PROBLEM,),
        reason=Reason.ADDRESS_INCOMPLETE,
    )
    link = "https://parcels.example.com/{waybill}?from=sms"
    chinese = told(of, Language.ZH, place="上海", tracking_link=link)
    assert chinese.subject == f"运单 {WAYBILL}：派送未成功"
    assert chinese.body.splitlines() == [
        "异常：地址有误",
        "原因：地址不详",
        "地点：上海",
        "时间：11月22日 12:00",
        f"查询：https://parcels.example.com/{WAYBILL}?from=sms",
    ]
    english = told(of, Language.EN, place="Shanghai", tracking_link=link, template=SHORT_TEMPLATE)
    assert english.subject == f"Parcel {WAYBILL}: Delivery attempt failed"
    assert english.body == f"Track it: https://parcels.example.com/{WAYBILL}?from=sms"


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_is_wrong_is_told_for_as_long_as_it_is(language: Language) -> None:
    """A flag whose own message was overtaken by this one stands in it, once; so does the status."""
    later = told(change(Milestone.DELIVERED, now=(Flag.DAMAGED,)), language)
    assert text(Flag.DAMAGED, language) in later.body
    both = (Flag.DAMAGED, Flag.DELAYED)
    second = told(change(first=False, raised=(Flag.DELAYED,), now=both), language)
    assert text(Flag.DAMAGED, language) in second.body
    assert text(Flag.DELAYED, language) not in second.body
    assert text(Milestone.OUT_FOR_DELIVERY, language) in second.body


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_correction_says_so_and_what_is_true_now(language: Language) -> None:
    """Even where the milestone is reached for the first time by it."""
    corrected = told(change(Milestone.IN_TRANSIT, correction=True), language)
    plain = told(change(Milestone.IN_TRANSIT), language)
    assert text(Milestone.IN_TRANSIT, language) in corrected.subject
    assert corrected.subject != plain.subject


def test_what_is_new_about_a_change() -> None:
    """The kinds in their order: correction, milestone, problem, resolved, and none of them."""
    flags = (Flag.DAMAGED,)
    assert kind_of(change(correction=True, raised=flags)) is Kind.CORRECTION
    assert kind_of(change(raised=flags)) is Kind.MILESTONE
    assert kind_of(change(first=False, raised=flags, cleared=(Flag.HELD,))) is Kind.PROBLEM
    assert kind_of(change(first=False, cleared=flags)) is Kind.RESOLVED
    assert kind_of(change(first=False)) is Kind.STATUS


def test_a_time_is_that_of_the_recipient() -> None:
    """The same moment in Shanghai and in New York, where it is the evening before."""
    assert local_time(NOON_MS, SHANGHAI, Language.ZH) == "11月22日 12:00"
    assert local_time(NOON_MS, ZoneInfo("America/New_York"), Language.EN) == "21 Nov 23:00"


def test_a_milestone_of_a_newer_server_is_not_guessed() -> None:
    """Its change has no message; a flag or reason that is not known is left out."""
    newer = change()
    newer.milestone = 999  # type: ignore[assignment]
    with pytest.raises(UnknownWord):
        news_of(newer)
    partly = change(first=False, raised=(Flag.DAMAGED,))
    partly.flags_raised.append(99)  # type: ignore[arg-type]
    partly.event.reason = 99  # type: ignore[assignment]
    assert news_of(partly).raised == (Flag.DAMAGED,)
    assert news_of(partly).reason is Reason.UNSPECIFIED


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_test_says_that_it_is_one(language: Language) -> None:
    """Nobody takes it for a parcel."""
    assert ("测试" if language is Language.ZH else "test") in trial_message(language).subject
