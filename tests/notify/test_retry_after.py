"""`Retry-After` in both of its forms, and everything that is neither."""

import pytest

from trackd.notify.retry_after import RETRY_AFTER_S_MAX, retry_after_s

NOW_S = 1_445_412_470.0  # ten seconds before the date below
DATE = "Wed, 21 Oct 2015 07:28:00 GMT"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        (" 120 ", 120.0),
        (DATE, 10.0),
        ("Wednesday, 21-Oct-15 07:28:00 GMT", 10.0),
        ("Tue, 20 Oct 2015 07:28:00 GMT", 0.0),
        ("Fri, 31 Dec 2999 23:59:59 GMT", RETRY_AFTER_S_MAX),
        ("99999999", RETRY_AFTER_S_MAX),
        ("9" * 5_000, RETRY_AFTER_S_MAX),
        ("-5", None),
        ("1.5", None),
        ("١٢", None),
        ("soon", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after(text: str | None, seconds: float | None) -> None:
    """Seconds from now, bounded to a day; what cannot be read says nothing."""
    assert retry_after_s(text, now_s=NOW_S) == seconds
