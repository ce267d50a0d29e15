"""Lists in pages: everything once and in order, within the bytes of an answer."""

import pytest

from trackd.v1.feed_pb2 import ListSubscriptionsResponse, Subscription
from trackd.wire.errors import CallError
from trackd.wire.listing import page

BYTES_MAX = 10_000


def items(*names: str, bytes_each: int = 0) -> list[tuple[str, bytes]]:
    """Subscriptions of such names, each padded."""
    waits = [1] * bytes_each
    return [
        (name, Subscription(name=name, retry_backoff_ms=waits).SerializeToString())
        for name in names
    ]


def read(listed: list[tuple[str, bytes]], token: str, size: int = 0) -> tuple[list[str], str]:
    """The names of a page, and the token of the next one."""
    answer = page(listed, page_size=size, page_token=token, bytes_max=BYTES_MAX)
    assert len(answer) <= BYTES_MAX
    told = ListSubscriptionsResponse.FromString(answer)
    return [each.name for each in told.subscriptions], told.next_page_token


def test_everything_fits_or_comes_in_pages() -> None:
    """Without a size as many as an answer holds; the last page has no token."""
    names = [f"s{number:03}" for number in range(100)]
    assert read(items(*names), "") == (names, "")
    assert read([], "") == ([], "")
    for size, bytes_each in ((0, 500), (7, 0), (1, 0), (100, 0)):
        found: list[str] = []
        token, pages = "", 0
        while True:
            some, token = read(items(*names, bytes_each=bytes_each), token, size)
            assert some
            found += some
            pages += 1
            if not token:
                break
        assert found == names
        assert pages > 1 or size == 100


def test_what_comes_and_goes_disturbs_nobody() -> None:
    """A page begins after the key of the last one, though that is gone by then."""
    some, token = read(items("a", "b", "d", "e"), "", 2)
    assert some == ["a", "b"]
    assert read(items("a", "c", "d", "e", "f"), token) == (["c", "d", "e", "f"], "")


@pytest.mark.parametrize(("size", "token"), [(-1, ""), (0, "x"), (0, "\xe9"), (0, "____")])
def test_what_names_no_page_is_refused(size: int, token: str) -> None:
    """With the field at fault."""
    with pytest.raises(CallError) as refused:
        page(items("a"), page_size=size, page_token=token, bytes_max=BYTES_MAX)
    assert refused.value.field == ("page_size" if size else "page_token")
