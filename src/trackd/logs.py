"""How the server logs: structlog in front, one line an event on standard error.

`set_up` is called once, by the wiring; everybody else asks `structlog.get_logger()`. The standard
library's loggers (grpc, asyncio, warnings) come out of the same end in the same shape. Waybill
numbers never reach a log: `waybill=` and `waybill_number=` become `waybill_hash=` on the way.
Nothing here knows what is logged.
"""

import json
import logging
import secrets
import sys
from hashlib import blake2b
from typing import Any, Literal, TextIO

import orjson
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["auto", "console", "json"]

# Their lower levels tell about themselves ("Using selector"), never about parcels.
_CHATTY = ("asyncio", "grpc")

_SALT_BYTES_MAX = 64  # blake2b's limit for a key


class _Salt:
    """What waybill numbers are hashed with; one writer: `salt_waybills`."""

    value: bytes = secrets.token_bytes(16)


def salt_waybills(data_set_id: str) -> None:
    """Hashes waybills with the identity of the data from now on: its logs agree over restarts.

    Until then the salt is random, so that a number can never be told from its hash alone: there are
    too few numbers for a plain hash to hide them.
    """
    _Salt.value = data_set_id.encode()[:_SALT_BYTES_MAX]


def waybill_hash(waybill_number: str) -> str:
    """What stands for a waybill in a log: 16 hexadecimal digits."""
    return blake2b(waybill_number.encode(), digest_size=8, key=_Salt.value).hexdigest()


def set_up(
    *, level: Level, log_format: Format, stream: TextIO | None = None, worker: int | None = None
) -> None:
    """Routes structlog and the standard library's logging to `stream`, standard error by default.

    worker: which of several server processes this is; then every line says so. May be called again:
    the last call counts.
    """
    out = stream or sys.stderr
    for_machines = log_format == "json" or (log_format == "auto" and not out.isatty())
    threshold = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[*_shared(worker), structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    last = _json() if for_machines else _console(colors=out.isatty())
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_shared(worker),
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(threshold)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(threshold, logging.WARNING))
    logging.captureWarnings(capture=True)


def _shared(worker: int | None) -> list[Processor]:
    def name_worker(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        return event if worker is None else {**event, "worker": worker}

    return [
        name_worker,
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        _hide_waybills,
    ]


def _hide_waybills(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    for key in ("waybill", "waybill_number"):
        number = event.pop(key, None)
        if number is not None:
            event["waybill_hash"] = waybill_hash(str(number))
    return event


def _json() -> list[Processor]:
    # A traceback with its local variables would carry whole events, so it comes as plain text.
    return [structlog.processors.format_exc_info, _dump]


def _dump(_: WrappedLogger, __: str, event: EventDict) -> str:
    try:
        return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:
        # A name of a file that is not UTF-8, which orjson refuses; or a number beyond its 64 bits.
        return json.dumps(event, default=str)


def _console(*, colors: bool) -> list[Processor]:
    renderer: Any = structlog.dev.ConsoleRenderer(
        colors=colors, exception_formatter=structlog.dev.plain_traceback
    )
    return [renderer]
