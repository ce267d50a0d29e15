"""How long to wait before the next attempt: exponential, with full jitter.

Full jitter spreads a crowd of clients that lost the same server at the same moment over the whole
interval (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
Nothing here waits or knows what is attempted.
"""

import random

from trackd.client.options import BackoffOptions


class Backoff:
    """One row of failed attempts. `reset` after a success."""

    def __init__(self, options: BackoffOptions) -> None:
        """Starts as after a success."""
        self._options = options
        self._ceiling_ms = options.ms_initial

    def next_s(self, *, at_least_ms: int | None = None) -> float:
        """Seconds to wait after one more failure.

        With `at_least_ms`, what the server asked for, the jitter comes on top: a crowd that was
        told the same time must not come back at the same time.
        """
        wait_ms = (at_least_ms or 0) + self._jitter_ms(self._ceiling_ms)
        self._ceiling_ms = min(self._ceiling_ms * 2, self._options.ms_max)
        return wait_ms / 1000

    def first_s(self) -> float:
        """Seconds to wait as after a first failure; the row does not grow."""
        return self._jitter_ms(self._options.ms_initial) / 1000

    def reset(self) -> None:
        """Forgets the failures."""
        self._ceiling_ms = self._options.ms_initial

    @staticmethod
    def _jitter_ms(ceiling_ms: int) -> float:
        return random.uniform(0, ceiling_ms)  # noqa: S311 - spreads load, hides nothing
