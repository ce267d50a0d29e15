"""Every word can be shown in both languages, and every reason belongs to somebody."""

import itertools

import pytest

from trackd.domain.catalogue import CATALOGUE, Language, Word, text
from trackd.domain.reasons import PARTY_OF, Party
from trackd.domain.vocabulary import EventCode, Flag, Milestone, Reason, ReceivedBy

KINDS: list[type[Word]] = [EventCode, Milestone, Flag, Reason, ReceivedBy]
WORDS: list[Word] = list(itertools.chain.from_iterable(KINDS))


@pytest.mark.parametrize("word", WORDS, ids=repr)
def test_every_word_has_both_texts(word: Word) -> None:
    """A word's texts are there, trimmed, short enough for a line, and in the right script."""
    chinese, english = text(word, Language.ZH), text(word, Language.EN)
    assert all("\u4e00" <= character <= "\u9fff" or character == "，" for character in chinese)
    assert 2 <= len(chinese) <= 10
    assert english.isascii()
    assert english == english.strip()
    assert english[0].isupper()
    assert 2 <= len(english) <= 40


def test_catalogue_has_nothing_but_the_words() -> None:
    """The catalogue, keyed by name, holds each word of each kind once and no other name."""
    assert {kind: set(texts) for kind, texts in CATALOGUE.items()} == {
        kind: set(kind.__members__) for kind in KINDS
    }


@pytest.mark.parametrize("language", list(Language))
@pytest.mark.parametrize("kind", KINDS)
def test_no_two_words_of_a_kind_read_the_same(kind: type[Word], language: Language) -> None:
    """A customer can tell any two words of one kind apart."""
    texts = [text(word, language) for word in kind]
    assert len(set(texts)) == len(texts)


def test_a_word_is_looked_up_by_kind_not_by_number() -> None:
    """Words of different kinds with equal numbers keep their own texts."""
    assert int(Flag.LOST) == int(Reason.RECIPIENT_REFUSED) == int(ReceivedBy.PROXY)
    assert text(Flag.LOST, Language.EN) == "Possibly lost"
    assert text(Reason.RECIPIENT_REFUSED, Language.EN) == "The recipient refused it"
    assert text(ReceivedBy.PROXY, Language.ZH) == "他人代收"


def test_every_reason_belongs_to_a_party() -> None:
    """The parties' table is total over reasons, and every party answers for something."""
    assert set(PARTY_OF) == set(Reason)
    assert set(PARTY_OF.values()) == set(Party)


def test_unexplained_problems_count_against_the_carrier() -> None:
    """Leaving the reason out does not improve the carrier's figures."""
    assert PARTY_OF[Reason.UNSPECIFIED] is PARTY_OF[Reason.OTHER] is Party.CARRIER
