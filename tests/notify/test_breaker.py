"""The circuit breaker: when an endpoint is left alone, and for how long. By a made-up clock."""

from trackd.notify.breaker import Breaker, BreakerOptions, BreakerState

OPTIONS = BreakerOptions(failures_max=3, pause_s=5, pause_s_max=15)


def opened(at_s: float = 100.0) -> Breaker:
    """A breaker that three failures in a row have opened."""
    breaker = Breaker(OPTIONS)
    for _ in range(3):
        assert breaker.rest_s(at_s) == 0
        breaker.failed(at_s)
    return breaker


def test_failures_in_a_row_open_it() -> None:
    """The third one does; a success between begins the count anew."""
    breaker = Breaker(OPTIONS)
    for _ in range(5):
        breaker.failed(1)
        breaker.failed(1)
        breaker.succeeded()
    assert breaker.state is BreakerState.CLOSED
    assert opened(100).rest_s(100) == 5


def test_after_the_pause_one_is_tried() -> None:
    """Its success closes it, and the next pause is a first one again."""
    breaker, states = opened(100), []
    for now_s, rest_s in ((104, 1), (105, 0)):
        assert breaker.rest_s(now_s) == rest_s
        states.append(breaker.state)
    breaker.succeeded()
    states.append(breaker.state)
    assert states == [BreakerState.OPEN, BreakerState.PROBING, BreakerState.CLOSED]
    for _ in range(3):
        breaker.failed(200)
    assert breaker.rest_s(200) == 5


def test_a_failed_probe_doubles_the_pause_up_to_the_bound() -> None:
    """An endpoint that is down for a day is asked once in a while."""
    breaker, now_s, pauses = opened(100), 100.0, []
    for _ in range(4):
        pauses.append(breaker.rest_s(now_s))
        now_s += pauses[-1]
        assert breaker.rest_s(now_s) == 0
        breaker.failed(now_s)
    assert pauses == [5, 10, 15, 15]


def test_what_was_under_way_when_it_opened_changes_nothing() -> None:
    """Neither late failures, which are of the same trouble, nor a late success."""
    breaker = opened(100)
    for _ in range(10):
        breaker.failed(101)
    breaker.succeeded()
    assert breaker.rest_s(101) == 4


def test_a_rest_that_is_asked_for_is_kept() -> None:
    """Retry-After: to the second, also where it is shorter or longer than our own pauses."""
    for asked_s in (0.5, 60.0):
        breaker = Breaker(OPTIONS)
        breaker.throttled(100, asked_s)
        assert breaker.rest_s(100) == asked_s
        assert breaker.rest_s(100 + asked_s) == 0


def test_come_back_at_once_is_a_short_rest() -> None:
    """Retry-After: 0 is no leave to go on at full speed."""
    breaker = Breaker(OPTIONS)
    breaker.throttled(100, 0.0)
    assert 0 < breaker.rest_s(100) <= 1


def test_the_longest_of_several_rests_counts() -> None:
    """Answers of one moment may differ."""
    breaker = Breaker(OPTIONS)
    for asked_s in (10, 60, 5, None):
        breaker.throttled(100, asked_s)
    assert breaker.rest_s(100) == 60


def test_without_a_time_the_pauses_grow() -> None:
    """429 or 503 without Retry-After is a pause of our own."""
    breaker = Breaker(OPTIONS)
    breaker.throttled(100, None)
    assert breaker.rest_s(100) == 5
    assert breaker.rest_s(105) == 0
    breaker.throttled(105, None)
    assert breaker.rest_s(105) == 10
