"""Secrets at rest: sealed for one place, under a key kept elsewhere; nothing else opens them."""

from pathlib import Path

import pytest

from trackd.sealing import KeyUnavailable, Seal

PLAIN = b"whsec_c2VjcmV0IG9mIGFuIGVuZHBvaW50"


def sealed_by(seal: Seal, place: bytes = b"a") -> bytes:
    """The plain text, sealed."""
    return seal.seal(PLAIN, place, must_exist=False)


def test_the_key_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    """Mode 0600 from the start; a second process finds it and opens what the first sealed."""
    path = tmp_path / "trackd.key"
    sealed = sealed_by(Seal(path))
    assert path.stat().st_mode & 0o777 == 0o600
    key = path.read_bytes()
    assert Seal(path).open(sealed, b"a") == PLAIN
    assert sealed_by(Seal(path)) != sealed, "never the same nonce twice"
    assert path.read_bytes() == key
    assert PLAIN not in sealed


def test_a_secret_opens_in_its_own_place_only(tmp_path: Path) -> None:
    """A record's secret cannot be moved into another record."""
    seal = Seal(tmp_path / "trackd.key")
    with pytest.raises(KeyUnavailable, match="tampered"):
        seal.open(sealed_by(seal), b"b")


def test_every_changed_byte_is_noticed(tmp_path: Path) -> None:
    """Version, nonce, text and tag; and what is cut short."""
    seal = Seal(tmp_path / "trackd.key")
    sealed = sealed_by(seal)
    for at in range(len(sealed)):
        changed = bytearray(sealed)
        changed[at] ^= 1
        with pytest.raises(KeyUnavailable):
            seal.open(bytes(changed), b"a")
        with pytest.raises(KeyUnavailable):
            seal.open(sealed[:at], b"a")


@pytest.mark.parametrize(
    "content", [b"", b"trackd-key-1 ", b"trackd-key-1 c2hvcnQ=\n", b"trackd-key-1 !!!\n", b"x" * 44]
)
def test_a_file_that_holds_no_key_is_refused(tmp_path: Path, content: bytes) -> None:
    """And left as it is: perhaps it can be mended."""
    path = tmp_path / "trackd.key"
    path.write_bytes(content)
    with pytest.raises(KeyUnavailable, match="no key of trackd"):
        sealed_by(Seal(path))
    assert path.read_bytes() == content


def test_a_lost_key_is_not_made_anew(tmp_path: Path) -> None:
    """Where something was sealed with it: a new one would hide the loss."""
    seal = Seal(tmp_path / "lost.key")
    with pytest.raises(KeyUnavailable, match="missing"):
        seal.seal(PLAIN, b"a", must_exist=True)
    sealed = sealed_by(Seal(tmp_path / "other.key"))
    with pytest.raises(KeyUnavailable, match="missing"):
        seal.open(sealed, b"a")
    with pytest.raises(KeyUnavailable, match="cannot be made"):
        sealed_by(Seal(tmp_path / "no" / "such" / "place.key"))
