"""Named points at which a test can have the process die, as if it were killed there.

`TRACKD_FAILPOINT=name:probability` arms one; unset, every point is one comparison with an empty
string. The death is SIGKILL: no handler, no flush, nothing that a real kill would not leave.
"""

import os
import random
import signal

_name, _, _probability = os.environ.get("TRACKD_FAILPOINT", "").partition(":")

NAMES = frozenset(
    {
        "before_write",
        "after_write",
        "after_flush",
        "before_ack",
        "in_checkpoint",
        "in_shutdown",
        "before_cursor_save",
        "after_cursor_save",
    }
)

if _name and _name not in NAMES:
    raise SystemExit(f"TRACKD_FAILPOINT: {_name!r} is not one of {', '.join(sorted(NAMES))}")


def reach(name: str) -> None:
    """Dies here if `name` is armed, with its probability."""
    if name == _name and random.random() < float(_probability or 1):  # noqa: S311 (not a secret)
        os.kill(os.getpid(), signal.SIGKILL)
