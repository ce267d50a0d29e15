"""The seed of a run: one number from which every random choice of a campaign follows.

`TRACKD_TEST_SEED` repeats a run; without it the seed is new every time, and always printed.
"""

import os
import random
import time

SEED = int(os.environ.get("TRACKD_TEST_SEED") or time.time_ns() % 1_000_000_007)


def seeded(name: str) -> random.Random:
    """A source of random numbers of its own for each campaign, so that one can be run alone."""
    print(f"{name}: TRACKD_TEST_SEED={SEED}")
    return random.Random(f"{SEED}/{name}")
