"""Every event code has its name, or its absence, in every outward scheme."""

import re

import pytest

from trackd.domain.outward import (
    NO_NAME,
    TABLE,
    Circumstance,
    Exactness,
    OutwardName,
    Scheme,
    outward_name,
)
from trackd.domain.vocabulary import EventCode, Reason, ReceivedBy

# What a name of each scheme looks like; EPCIS lists are closed (GS1 CBV 2.0, those used here).
SHAPES = {
    Scheme.SEVENTEEN_TRACK: r"InfoReceived|(InTransit|OutForDelivery|DeliveryFailure|Delivered"
    r"|AvailableForPickup|Exception)_[A-Z]\w+",
    Scheme.AFTERSHIP: r"(InfoReceived|InTransit|OutForDelivery|AttemptFail|Delivered"
    r"|AvailableForPickup|Exception)_0\d\d",
    Scheme.KUAIDI100: r"\d{1,2}|[1-5]\d\d|100[123]|updateall",
    Scheme.UPU_EMS: r"EM[A-K]|ED[A-H]|EX[A-DX]",
    Scheme.EPCIS_BIZ_STEP: r"accepting|arriving|commissioning|departing|destroying|holding"
    r"|inspecting|other|receiving|shipping|staging_outbound|storing|transporting|void_shipping",
    Scheme.EPCIS_DISPOSITION: r"active|available|conformant|damaged|destroyed|in_progress"
    r"|in_transit|non_conformant|returned|unknown",
    Scheme.EPCIS_ELEMENT: r"errorDeclaration|persistentDisposition/unset",
    Scheme.SF_OP: r"\d{2,4}",
}


def test_table_is_total_and_ends_every_cell_without_condition() -> None:
    """Every code has a cell in every scheme, with an answer for when nothing else is known."""
    assert set(TABLE) == {(code, scheme) for code in EventCode for scheme in Scheme}
    for rows in TABLE.values():
        *special, usual = rows
        assert usual[0] == ()
        assert all(conditions for conditions, _ in special)


@pytest.mark.parametrize("scheme", list(Scheme))
def test_names_have_the_shape_of_their_scheme(scheme: Scheme) -> None:
    """No name strays into another scheme's column, and only NONE is without a name."""
    for code in EventCode:
        for _, outward in TABLE[code, scheme]:
            names = [outward.name, *outward.also] if outward.name else []
            assert (outward == NO_NAME) is (not names) is (outward.exactness is Exactness.NONE)
            assert all(re.fullmatch(SHAPES[scheme], name) for name in names), (code, names)


def test_without_more_knowledge_the_general_name_is_sent() -> None:
    """A code alone gives the scheme's general name, its exactness, and what else fits."""
    assert outward_name(EventCode.REGISTERED, Scheme.KUAIDI100) == OutwardName(
        "101", Exactness.EXACT, ("102",)
    )
    assert outward_name(EventCode.SORTED, Scheme.EPCIS_BIZ_STEP) == OutwardName(
        "staging_outbound", Exactness.APPROXIMATE
    )
    assert outward_name(EventCode.CANCELLED, Scheme.AFTERSHIP) == NO_NAME
    assert outward_name(EventCode.EVENT_VOIDED, Scheme.EPCIS_ELEMENT).name == "errorDeclaration"


@pytest.mark.parametrize(
    ("received_by", "aftership", "kuaidi100"),
    [
        (ReceivedBy.UNSPECIFIED, "Delivered_001", "3"),
        (ReceivedBy.SELF, "Delivered_003", "301"),
        (ReceivedBy.PROXY, "Delivered_005", "303"),
        (ReceivedBy.LOCKER, "Delivered_002", "304"),
        (ReceivedBy.STATION, "Delivered_002", "304"),
        (ReceivedBy.COUNTER, "Delivered_001", "3"),
    ],
)
def test_receipt_decides_how_it_was_delivered(
    received_by: ReceivedBy, aftership: str, kuaidi100: str
) -> None:
    """Who took the parcel picks the kind of delivery where a scheme has kinds."""
    for scheme, name in ((Scheme.AFTERSHIP, aftership), (Scheme.KUAIDI100, kuaidi100)):
        assert outward_name(EventCode.DELIVERED, scheme, received_by=received_by).name == name
    after = frozenset({Circumstance.AFTER_EXCEPTION})
    late = outward_name(
        EventCode.DELIVERED, Scheme.KUAIDI100, received_by=received_by, circumstances=after
    )
    assert late.name == "302"


@pytest.mark.parametrize(
    ("code", "scheme", "reason", "name"),
    [
        (51, Scheme.SEVENTEEN_TRACK, Reason.RECIPIENT_ABSENT, "DeliveryFailure_NoBody"),
        (51, Scheme.SEVENTEEN_TRACK, Reason.ADDRESS_INCOMPLETE, "DeliveryFailure_InvalidAddress"),
        (51, Scheme.SEVENTEEN_TRACK, Reason.SECURITY, "DeliveryFailure_Security"),
        (51, Scheme.SEVENTEEN_TRACK, Reason.WEATHER, "DeliveryFailure_Other"),
        (51, Scheme.AFTERSHIP, Reason.RECIPIENT_ABSENT, "AttemptFail_002"),
        (51, Scheme.AFTERSHIP, Reason.BUSINESS_CLOSED, "AttemptFail_003"),
        (51, Scheme.KUAIDI100, Reason.RECIPIENT_UNREACHABLE, "206"),
        (51, Scheme.KUAIDI100, Reason.OUT_OF_SERVICE_AREA, "207"),
        (51, Scheme.KUAIDI100, Reason.RECIPIENT_ABSENT, "204"),
        (41, Scheme.SEVENTEEN_TRACK, Reason.PROHIBITED_GOODS, "Exception_Security"),
        (41, Scheme.AFTERSHIP, Reason.DOCUMENTS_MISSING, "Exception_018"),
        (92, Scheme.AFTERSHIP, Reason.WEATHER, "Exception_017"),
        (93, Scheme.AFTERSHIP, Reason.PAYMENT_DUE, "Exception_006"),
    ],
)
def test_reason_decides_what_went_wrong(
    code: int, scheme: Scheme, reason: Reason, name: str
) -> None:
    """The reason of a failure picks its sub-type where a scheme has sub-types."""
    assert outward_name(EventCode(code), scheme, reason=reason).name == name


def test_equal_numbers_of_receipt_and_reason_are_not_confused() -> None:
    """SELF and RECIPIENT_ABSENT are both 1, and neither passes for the other."""
    assert int(ReceivedBy.SELF) == int(Reason.RECIPIENT_ABSENT)
    delivered = outward_name(EventCode.DELIVERED, Scheme.AFTERSHIP, reason=Reason.RECIPIENT_ABSENT)
    failed = outward_name(
        EventCode.DELIVERY_ATTEMPT_FAILED, Scheme.AFTERSHIP, received_by=ReceivedBy.SELF
    )
    assert (delivered.name, failed.name) == ("Delivered_001", "AttemptFail_001")


@pytest.mark.parametrize(
    ("where", "names"),
    [
        (None, ["EDD", "EDE", "EDB", "EME", "EDC"]),
        (Circumstance.OUTWARD_EXCHANGE, ["EMB", "EMC", "EXA", "EXB", "EXC"]),
        (Circumstance.TRANSIT_EXCHANGE, ["EMJ", "EMK", "EDB", "EME", "EDC"]),
        (Circumstance.INWARD_EXCHANGE, ["EMD", "EMF", "EDB", "EME", "EDC"]),
        (Circumstance.DELIVERY_OUTLET, ["EMG", "EDE", "EDB", "EME", "EDC"]),
    ],
)
def test_place_decides_the_postal_event(where: Circumstance | None, names: list[str]) -> None:
    """The UPU names the same scan after the office it was made in."""
    codes = (30, 32, 40, 41, 42)
    circumstances = frozenset() if where is None else frozenset({where})
    assert names == [
        outward_name(EventCode(code), Scheme.UPU_EMS, circumstances=circumstances).name
        for code in codes
    ]
