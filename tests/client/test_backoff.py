"""Pauses between attempts grow within their bound, are spread, and start anew after a success."""

import pytest

from trackd.client import BackoffOptions
from trackd.client.backoff import Backoff

OPTIONS = BackoffOptions(ms_initial=100, ms_max=1_000)


def rows(count: int) -> list[list[float]]:
    """Pauses of many clients that fail eight times in a row, in milliseconds."""
    made = []
    for _ in range(count):
        backoff = Backoff(OPTIONS)
        made.append([backoff.next_s() * 1000 for _ in range(8)])
    return made


def test_pauses_stay_below_a_ceiling_that_doubles_to_its_bound() -> None:
    """The n-th pause lies between 0 and min(bound, initial · 2ⁿ), and makes use of that range."""
    ceilings = [100, 200, 400, 800, 1_000, 1_000, 1_000, 1_000]
    for pauses, ceiling in zip(zip(*rows(300), strict=True), ceilings, strict=True):
        assert 0 <= min(pauses) < ceiling * 0.1
        assert ceiling * 0.9 < max(pauses) <= ceiling


def test_a_success_starts_anew() -> None:
    """After `reset` the first pause is a first pause again."""
    backoff = Backoff(OPTIONS)
    for _ in range(200):
        backoff.next_s()
        backoff.next_s()
        backoff.reset()
        assert backoff.next_s() <= 0.1
        backoff.reset()


def test_what_the_server_asked_for_is_kept_and_spread() -> None:
    """No client comes back earlier than told, and not all of them at once."""
    pauses = [Backoff(OPTIONS).next_s(at_least_ms=5_000) for _ in range(200)]
    assert min(pauses) >= 5.0
    assert max(pauses) - min(pauses) > 0.05


def test_looking_for_a_scan_at_fault_does_not_grow_pauses() -> None:
    """`first_s` never exceeds the first ceiling and leaves the row where it is."""
    backoff = Backoff(OPTIONS)
    assert max(backoff.first_s() for _ in range(200)) <= 0.1
    assert backoff.next_s() <= 0.1


def test_a_ceiling_below_its_start_is_refused() -> None:
    """Options under which nothing could grow are a programmer's error."""
    with pytest.raises(ValueError, match="ms_initial"):
        BackoffOptions(ms_initial=100, ms_max=50)
