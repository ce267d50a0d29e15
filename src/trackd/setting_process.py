"""The settings of the process itself: where it keeps and serves, how it runs, what it logs.

The first part of Settings (settings.py), which says what holds for every setting.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator
from pydantic_settings import BaseSettings, SettingsConfigDict

from trackd.address import parse_address
from trackd.setting_kinds import LOGS, SERVING, WHERE
from trackd.setting_kinds import setting as _setting

ENV_PREFIX = "TRACKD_"


def _listen(text: str) -> str:
    return str(parse_address(text))


Listen = Annotated[str, AfterValidator(_listen)]


class ProcessSettings(BaseSettings):
    """The first part of Settings."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_ignore_empty=True, extra="forbid", frozen=True
    )

    config: Path | None = _setting(
        None, WHERE, "TOML file with settings; flags and environment go before it."
    )
    data: Annotated[Path, AfterValidator(Path.expanduser)] = _setting(
        Path("trackd-data"),
        WHERE,
        "Directory of the embedded store; made when it is not there. One server at a time.",
    )
    grpc: Listen = _setting(
        "127.0.0.1:50551", WHERE, "HOST:PORT of the gRPC API; port 0 takes a free one."
    )
    metrics: Listen = _setting(
        "127.0.0.1:9551", WHERE, "HOST:PORT of the Prometheus metrics; port 0 takes a free one."
    )
    http: Listen = _setting(
        "127.0.0.1:8551", WHERE, "HOST:PORT of the web pages; not served in this version."
    )

    partitions: int | None = _setting(
        None,
        SERVING,
        "How many partitions new data is made with, 1 to 256; by default the number of cores."
        " Data that exists keeps its own number, and the server refuses to start with another"
        " one.",
        ge=1,
        le=256,
    )
    workers: int | None = _setting(
        None,
        SERVING,
        "Server processes that share the partitions, one core each; by default one per core but"
        " one, which flushes and compactions have, never more than partitions. With more than one a"
        " supervisor starts them and starts again what dies.",
        ge=1,
        le=256,
    )
    worker_port_first: int = _setting(
        0,
        SERVING,
        "With several workers: the own gRPC port of the first one; the next have the next ports."
        " 0 takes free ones, anew at each start.",
        ge=0,
        le=65_000,
    )
    advertise_host: str | None = _setting(
        None,
        SERVING,
        "The host by which GetTopology names this server to clients; by default the one of `grpc`,"
        " or this machine's outward address where that means all. Clients that cannot reach it"
        " stay with the address they know.",
    )
    loop: Literal["uvloop", "asyncio"] = _setting(
        "uvloop", SERVING, "The event loop: uvloop takes less CPU, asyncio is Python's own."
    )
    reflection: bool = _setting(
        False, SERVING, "Serve gRPC reflection, so that grpcurl and the like can look around."
    )
    shutdown_grace_s: float = _setting(
        10.0,
        SERVING,
        "Seconds that running calls have to end after SIGTERM; what still runs then is cut off with"
        " UNAVAILABLE, and what was acknowledged stays.",
        ge=0,
        le=3600,
    )

    log_level: Literal["debug", "info", "warning", "error"] = _setting(
        "info", LOGS, "The least level that is written."
    )
    log_format: Literal["auto", "console", "json"] = _setting(
        "auto", LOGS, "console for people, json for machines; auto is console on a terminal."
    )
