"""The one line on standard output, which scripts wait for. Knows nothing of what is ready."""

import os

import structlog

_STANDARD_OUTPUT = 1

_log = structlog.get_logger()


def say_ready(line: str) -> None:
    """Writes the line, if there is anybody to read it: who is not heard is ready all the same."""
    try:
        # Past Python's buffer, which would be written once more at the end, and fail again.
        os.write(_STANDARD_OUTPUT, f"{line}\n".encode())
    except OSError as error:
        _log.warning("nobody hears that it is ready", error=str(error))
