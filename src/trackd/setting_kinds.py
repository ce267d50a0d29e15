"""The kinds of values that settings have, and the headings under which they are shown.

Nothing here knows any one setting; they are in settings.py.
"""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, ByteSize, Field

from trackd.message_url import listed_schemes

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40

# The headings under which `trackd serve --help` and `trackd config` show the settings.
WHERE = "Where"
SERVING = "Serving"
LOGS = "Logs"
LIMITS = "Limits"
MEMORY = "Memory and disk"
FEED = "Feed"
NEWS = "Endpoints"
UNSAFE = "Unsafe"


def human_size(size: int) -> str:
    """The exact size in its largest binary unit, as `load` reads it back: 268435456 is 256MiB."""
    for unit, name in ((TIB, "TiB"), (GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if size >= unit and size % unit == 0:
            return f"{size // unit}{name}"
    return str(size)


# ByteSize would read "2MiB or so" as 2 MiB.
_SIZE_TEXT = re.compile(r"\s*\d+(\.\d+)?\s*[A-Za-z]*\s*", re.ASCII)
NOT_A_SIZE = "must be a size such as 64MiB, 1GiB or 1048576"


def _size_text(value: object) -> object:
    if isinstance(value, str) and not _SIZE_TEXT.fullmatch(value):
        raise ValueError(NOT_A_SIZE)
    return value


def within(least: int, most: int) -> AfterValidator:
    """Refuses a size outside these bytes, both included."""

    # By hand, because pydantic would tell these limits in plain bytes.
    def check(value: ByteSize) -> ByteSize:
        if not least <= value <= most:
            raise ValueError(f"must be {human_size(least)} to {human_size(most)}")
        return value

    return AfterValidator(check)


Schemes = Annotated[str, AfterValidator(listed_schemes)]
Size = Annotated[ByteSize, BeforeValidator(_size_text)]


def beyond_loopback(name: str, address: object, env_prefix: str) -> str:
    """Why a setting is refused that would listen where others can reach it, without TLS."""
    return (
        f"{name} = {address} can be reached from other machines, without TLS: listen on 127.0.0.1,"
        f" or say --unsafe-plaintext ({env_prefix}UNSAFE_PLAINTEXT=true) if that is meant"
    )


def setting(default: Any, panel: str, description: str, **limits: Any) -> Any:
    """A field of the settings, shown under a heading; limits are pydantic's."""
    return Field(default, description=description, json_schema_extra={"panel": panel}, **limits)
