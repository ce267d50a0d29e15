"""`Retry-After`, read: seconds or an HTTP date (RFC 9110, 10.2.3)."""

from email.utils import parsedate_to_datetime

# An endpoint may ask for a day's rest. What asks for more is asked again after a day.
RETRY_AFTER_S_MAX = 86_400.0


def retry_after_s(text: str | None, *, now_s: float) -> float | None:
    """Seconds to wait, 0 to RETRY_AFTER_S_MAX; None where nothing was said that can be read."""
    if text is None:
        return None
    text = text.strip()
    if text.isascii() and text.isdigit():
        # Nine digits are beyond the bound; a million of them would take long to read.
        return min(float(text[:9]), RETRY_AFTER_S_MAX)
    try:
        at = parsedate_to_datetime(text)
        wait_s = at.timestamp() - now_s
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(wait_s, 0.0), RETRY_AFTER_S_MAX)
