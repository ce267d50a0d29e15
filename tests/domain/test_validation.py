"""What an event may hold: every limit at its edge and one beyond it, and every reason to reject."""

import math
from collections.abc import Callable

import pytest

from trackd.domain.validation import (
    OCCURRED_AT_MS_MIN,
    fault_in,
    is_event_id,
    normal_waybill_number,
)
from trackd.domain.vocabulary import EventCode, Flag, Reason, ReceivedBy, Rejection
from trackd.v1.event_pb2 import GeoPoint, Receipt, ScanEvent

LATEST_MS = 1_700_000_000_000
# Printable in every sense, four bytes of UTF-8, one character.
WIDE = "\N{CJK UNIFIED IDEOGRAPH-20000}"


def scan(**fields: object) -> ScanEvent:
    """A valid event with some fields set otherwise."""
    return ScanEvent(
        **{
            "event_id": "gun-1:1",
            "waybill_number": "SF1234567890",
            "code": int(EventCode.SORTED),
            "occurred_at_ms": LATEST_MS,
            **fields,
        }  # type: ignore[arg-type]
    )


def fault(event: ScanEvent) -> tuple[Rejection, str] | None:
    """Reason and field of an event's fault."""
    found = fault_in(event, LATEST_MS)
    return found and (found.reason, found.field)


def test_an_event_of_nothing_but_its_identity_is_valid() -> None:
    """What a scan must have is an id, a waybill number, a code and a time."""
    assert fault(scan()) is None


# Identity, code and time.


@pytest.mark.parametrize(
    "number", ["SF12", "A" * 40, "0000", "----", "ab-12", "  sf1234\t", "\u3000SF1234\u3000\n"]
)
def test_waybill_numbers_of_4_to_40_letters_digits_and_hyphens(number: str) -> None:
    """White space around it and lower case are the sender's habits, not faults."""
    assert fault(scan(waybill_number=number)) is None
    assert normal_waybill_number(number) == number.strip().upper()


@pytest.mark.parametrize(
    "number",
    ["", "   ", "SF1", "A" * 41, "SF 1234", "SF_1234", "SF12\x00", "ſf1234", "ＳＦ1234", "SF١٢٣٤"],
)
def test_anything_else_is_no_waybill_number(number: str) -> None:
    """Too short, too long, or a character outside of A-Z, 0-9 and hyphen."""
    assert fault(scan(waybill_number=number)) == (
        Rejection.INVALID_WAYBILL_NUMBER,
        "waybill_number",
    )
    assert normal_waybill_number(number) is None


@pytest.mark.parametrize("event_id", ["x", "x" * 64, "gun-1:7", "~ !", " "])
def test_event_ids_of_1_to_64_printable_ascii_characters(event_id: str) -> None:
    """The sender chooses."""
    assert is_event_id(event_id)
    assert fault(scan(event_id=event_id)) is None


@pytest.mark.parametrize("event_id", ["", "x" * 65, "é", "a\n", "\x7f", "扫描"])
def test_anything_else_is_no_event_id(event_id: str) -> None:
    """Empty, too long, or not printable ASCII."""
    assert not is_event_id(event_id)
    assert fault(scan(event_id=event_id)) == (Rejection.INVALID_EVENT_ID, "event_id")


@pytest.mark.parametrize("code", [0, 1, 11, 53, 82, 95, 98, 100, 2**31 - 1, -1])
def test_codes_outside_of_the_vocabulary(code: int) -> None:
    """UNSPECIFIED and unknown ones, also such as steps and milestones use inside."""
    assert fault(scan(code=code)) == (Rejection.UNKNOWN_CODE, "code")


@pytest.mark.parametrize("code", [code for code in EventCode if code != EventCode.EVENT_VOIDED])
def test_every_code_of_the_vocabulary_is_known(code: EventCode) -> None:
    """Alone, with no field that is not required."""
    assert fault(scan(code=int(code))) is None


@pytest.mark.parametrize(
    ("occurred_at_ms", "accepted"),
    [
        (OCCURRED_AT_MS_MIN, True),
        (OCCURRED_AT_MS_MIN - 1, False),
        (LATEST_MS, True),
        (LATEST_MS + 1, False),
        (0, False),
        (-(2**63), False),
        (2**63 - 1, False),
    ],
)
def test_times_from_2000_to_a_little_after_now(occurred_at_ms: int, accepted: bool) -> None:
    """Both ends belong to the range."""
    expected = None if accepted else (Rejection.TIME_OUT_OF_RANGE, "occurred_at_ms")
    assert fault(scan(occurred_at_ms=occurred_at_ms)) == expected


# Texts.


def with_receipt(name: str) -> Callable[[str], ScanEvent]:
    """Makes an event with a text in its receipt."""
    return lambda text: scan(receipt=Receipt(**{name: text}))  # type: ignore[arg-type]


def with_field(name: str) -> Callable[[str], ScanEvent]:
    """Makes an event with a text in a field."""
    return lambda text: scan(**{name: text})


TEXTS: dict[str, tuple[Callable[[str], ScanEvent], int]] = {
    **{
        name: (with_field(name), 32)
        for name in (
            "facility_code",
            "next_facility_code",
            "device_id",
            "operator_id",
            "source_system",
            "source_code",
        )
    },
    "remark": (with_field("remark"), 500),
    "container_number": (with_field("container_number"), 40),
    "receipt.consent_reference": (with_receipt("consent_reference"), 64),
    "receipt.signer": (with_receipt("signer"), 64),
    'attributes["note"]': (lambda text: scan(attributes={"note": text}), 200),
}


@pytest.mark.parametrize("field", list(TEXTS))
def test_each_text_has_its_limit_in_characters(field: str) -> None:
    """At the limit it is valid, one more is FIELD_TOO_LONG; characters count, not bytes."""
    made, limit = TEXTS[field]
    for character in ("x", WIDE):
        assert fault(made(character * limit)) is None
        assert fault(made(character * (limit + 1))) == (Rejection.FIELD_TOO_LONG, field)
    too_long = fault_in(made("x" * (limit + 1)), LATEST_MS)
    assert too_long is not None
    assert str(limit) in too_long.message
    assert str(limit + 1) in too_long.message


@pytest.mark.parametrize("control", ["\x00", "\n", "\t", "\x1b", "\x7f", "\x85", "\x9f"])
@pytest.mark.parametrize("field", list(TEXTS))
def test_no_text_holds_a_control_character(field: str, control: str) -> None:
    """Neither of ASCII nor of the block behind it; a terminal that shows a timeline is safe."""
    made, _ = TEXTS[field]
    assert fault(made(f"a{control}b")) == (Rejection.INVALID_FIELD, field)


@pytest.mark.parametrize("field", list(TEXTS))
def test_people_may_write_what_codes_may_not(field: str) -> None:
    """Only what people write may hold spaces that are not the plain one."""
    made, _ = TEXTS[field]
    prose = field in {"remark", "receipt.signer"} or field.startswith("attributes")
    assert (fault(made("a\u3000b")) is None) is prose
    assert fault(made("上海 浦东 (二)")) is None


def test_attributes_have_limits_of_number_key_and_value() -> None:
    """16 entries, keys of 1 to 32 characters."""
    assert fault(scan(attributes={f"k{n}": "" for n in range(16)})) is None
    entries = {f"k{n}": "" for n in range(17)}
    assert fault(scan(attributes=entries)) == (Rejection.FIELD_TOO_LONG, "attributes")
    assert fault(scan(attributes={"k" * 32: "v"})) is None
    assert fault(scan(attributes={"k" * 33: "v"})) == (Rejection.FIELD_TOO_LONG, "attributes")
    assert fault(scan(attributes={"": "v"})) == (Rejection.INVALID_FIELD, "attributes")
    assert fault(scan(attributes={"a\nb": "v"})) == (Rejection.INVALID_FIELD, "attributes")


# Values.


@pytest.mark.parametrize("degrees", [0.0, 90.0, -90.0, 31.230416])
def test_latitudes_on_earth(degrees: float) -> None:
    """-90 to 90, the poles included."""
    assert fault(scan(location=GeoPoint(latitude=degrees))) is None


@pytest.mark.parametrize("degrees", [math.nextafter(90, 91), -91.0, math.inf, -math.inf, math.nan])
def test_latitudes_off_the_earth(degrees: float) -> None:
    """Beyond the poles, or no number."""
    located = scan(location=GeoPoint(latitude=degrees))
    assert fault(located) == (Rejection.INVALID_FIELD, "location.latitude")


@pytest.mark.parametrize("degrees", [180.0, -180.0, 121.473701])
def test_longitudes_on_earth(degrees: float) -> None:
    """-180 to 180, both ends included."""
    assert fault(scan(location=GeoPoint(longitude=degrees))) is None


@pytest.mark.parametrize("degrees", [math.nextafter(180, 181), -181.0, math.inf, math.nan])
def test_longitudes_off_the_earth(degrees: float) -> None:
    """Beyond the antimeridian, or no number."""
    located = scan(location=GeoPoint(longitude=degrees))
    assert fault(located) == (Rejection.INVALID_FIELD, "location.longitude")


def test_enumerations_are_closed() -> None:
    """Every value of the vocabulary is taken, one beyond the last is not."""
    for reason in Reason:
        assert fault(scan(reason=int(reason))) is None
    assert fault(scan(reason=max(Reason) + 1)) == (Rejection.INVALID_FIELD, "reason")
    for receiver in ReceivedBy:
        assert fault(scan(receipt=Receipt(received_by=int(receiver)))) is None  # type: ignore[arg-type]
    unknown = scan(receipt=Receipt(received_by=max(ReceivedBy) + 1))  # type: ignore[arg-type]
    assert fault(unknown) == (Rejection.INVALID_FIELD, "receipt.received_by")


@pytest.mark.parametrize(
    ("digest", "accepted"),
    [
        ("", True),
        ("0123456789abcdefABCDEF" + "0" * 42, True),
        ("0" * 63, False),
        ("0" * 65, False),
        ("g" * 64, False),
    ],
)
def test_a_proof_is_a_sha256(digest: str, accepted: bool) -> None:
    """64 hexadecimal digits in any case, or nothing."""
    expected = None if accepted else (Rejection.INVALID_FIELD, "receipt.proof_sha256")
    assert fault(scan(receipt=Receipt(proof_sha256=digest))) == expected


# Meaning.


@pytest.mark.parametrize("clears", ["", "HELD", "held, delayed", ",".join(Flag.__members__)])
def test_a_resolved_problem_names_flags_or_none(clears: str) -> None:
    """`clears` is optional; empty is the same as absent."""
    code = int(EventCode.PROBLEM_RESOLVED)
    assert fault(scan(code=code, attributes={"clears": clears})) is None


def test_a_resolved_problem_that_names_no_flag_is_told_which() -> None:
    """The message holds the name at fault."""
    code = int(EventCode.PROBLEM_RESOLVED)
    found = fault_in(scan(code=code, attributes={"clears": "HELD,GONE"}), LATEST_MS)
    assert found is not None
    assert (found.reason, found.field) == (Rejection.INVALID_FIELD, 'attributes["clears"]')
    assert "GONE" in found.message
    assert "HELD" not in found.message
    assert fault(scan(attributes={"clears": "anything"})) is None, "other codes may use the name"


def test_a_void_names_another_event() -> None:
    """`voids` is required: an event id, and not its own."""
    code, field = int(EventCode.EVENT_VOIDED), (Rejection.INVALID_FIELD, 'attributes["voids"]')
    assert fault(scan(code=code, attributes={"voids": "x" * 64})) is None
    for attributes in ({}, {"voids": ""}, {"voids": "x" * 65}, {"voids": "é"}):
        assert fault(scan(code=code, attributes=attributes)) == field
    assert fault(scan(code=code, event_id="me", attributes={"voids": "me"})) == field


# What the sender reads.


def one_of_each_fault() -> dict[str, ScanEvent]:
    """An event for each sentence that a rejection can hold, by what the sentence must name."""
    void = int(EventCode.EVENT_VOIDED)
    return {
        "4-40": scan(waybill_number="x"),
        "1-64": scan(event_id=""),
        "77": scan(code=77),
        str(OCCURRED_AT_MS_MIN): scan(occurred_at_ms=1),
        "at most 32": scan(facility_code="x" * 33),
        "at most 500": scan(remark="x" * 501),
        "at most 40": scan(container_number="x" * 41),
        "at most 64": scan(receipt=Receipt(signer="x" * 65)),
        "at most 16": scan(attributes={f"k{n}": "" for n in range(17)}),
        "at most 200": scan(attributes={"k": "x" * 201}),
        "-90 to 90": scan(location=GeoPoint(latitude=91)),
        "-180 to 180": scan(location=GeoPoint(longitude=181)),
        "64 hexadecimal": scan(receipt=Receipt(proof_sha256="x")),
        "id of another event": scan(code=void),
    }


@pytest.mark.parametrize("named", list(one_of_each_fault()))
def test_the_message_names_the_limit(named: str) -> None:
    """Whoever reads a rejection knows what would have been right."""
    found = fault_in(one_of_each_fault()[named], LATEST_MS)
    assert found is not None
    assert named in found.message


def test_every_reason_but_conflict_is_given_here() -> None:
    """The vocabulary has no reason that nobody gives; a conflict needs the stored event."""
    faults = [fault(event) for event in one_of_each_fault().values()]
    assert {found[0] for found in faults if found} == set(Rejection) - {Rejection.CONFLICT}


def test_the_first_check_that_fails_decides() -> None:
    """In the order of the vocabulary's reasons."""
    worst = scan(waybill_number="", event_id="", code=0, occurred_at_ms=0, remark="x" * 501)
    expected = []
    for mend in (
        {"waybill_number": "SF1234"},
        {"event_id": "e"},
        {"code": int(EventCode.SORTED)},
        {"occurred_at_ms": LATEST_MS},
        {"remark": "\n"},
        {"remark": ""},
    ):
        found = fault(worst)
        assert found is not None
        expected.append(found[0])
        for name, value in mend.items():
            setattr(worst, name, value)
    assert expected == sorted(set(Rejection) - {Rejection.CONFLICT})
    assert fault(worst) is None
