"""The words of the domain are those of the contract, and flags travel as bit masks."""

from enum import IntEnum

import pytest
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper

from trackd.domain.vocabulary import (
    EventCode,
    Flag,
    Milestone,
    Reason,
    ReceivedBy,
    Rejection,
    flag_mask,
    flags_of,
)
from trackd.v1 import vocabulary_pb2

# The contract's zero is left out where the domain has no word for "nothing was said".
PAIRS = [
    (EventCode, vocabulary_pb2.EventCode, "EVENT_CODE_", True),
    (Milestone, vocabulary_pb2.Milestone, "MILESTONE_", False),
    (Flag, vocabulary_pb2.Flag, "FLAG_", True),
    (Reason, vocabulary_pb2.ReasonCode, "REASON_CODE_", False),
    (ReceivedBy, vocabulary_pb2.ReceivedBy, "RECEIVED_BY_", False),
    (Rejection, vocabulary_pb2.RejectionReason, "REJECTION_REASON_", True),
]


@pytest.mark.parametrize(
    ("words", "contract", "prefix", "without_zero"), PAIRS, ids=lambda v: getattr(v, "__name__", "")
)
def test_words_are_those_of_the_contract(
    words: type[IntEnum], contract: EnumTypeWrapper, prefix: str, without_zero: bool
) -> None:
    """Every enumeration has the names and numbers of its proto enum, no more and no fewer."""
    assert all(name.startswith(prefix) for name, _ in contract.items())
    expected = {name.removeprefix(prefix): number for name, number in contract.items()}
    if without_zero:
        assert expected.pop("UNSPECIFIED") == 0
    assert {word.name: word.value for word in words} == expected


def test_contract_has_no_enum_that_the_domain_leaves_out() -> None:
    """A new enum in vocabulary.proto must come to the domain too."""
    names = set(vocabulary_pb2.DESCRIPTOR.enum_types_by_name)
    assert names == {contract.DESCRIPTOR.name for _, contract, _, _ in PAIRS}


def test_mask_holds_exactly_its_flags() -> None:
    """A set of flags survives the way into a mask and back, in ascending order."""
    assert flags_of(flag_mask(Flag.LOST, Flag.DAMAGED)) == [Flag.DAMAGED, Flag.LOST]
    assert flags_of(flag_mask(*Flag)) == list(Flag)
    assert flags_of(flag_mask()) == []
