"""Read by a Python that starts with this folder in PYTHONPATH: an engine with tiny buffers.

It makes of the real server one whose writes stall under a load that a test can make. No setting
goes as low: in service it would only be slow.
"""

from typing import Any

from trackd.store import engine

_TINY = {
    "write_buffer_bytes": 64 << 10,
    "level0_compaction_files": 2,
    "level0_slowdown_files": 3,
    "level0_stop_files": 4,
}
_real = engine.EngineOptions


def _tiny(**options: Any) -> engine.EngineOptions:
    return _real(**(options | _TINY))


engine.EngineOptions = _tiny  # type: ignore[assignment,misc] # made by this name in server.py
