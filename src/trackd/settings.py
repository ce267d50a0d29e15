"""Every setting: its name, default, unit and limits, and what a caller sees beyond a bound.

A setting has one name everywhere: `commit_events_max` in TOML, TRACKD_COMMIT_EVENTS_MAX in the
environment, `--commit-events-max` on the command line, whose flags are made from this model.
Precedence: flag, environment, file, default. Relative paths are relative to the working directory.
Nothing here knows who reads a setting; `configuration.py` loads them and explains what is wrong.
"""

from pathlib import Path
from typing import Annotated, Self

from pydantic import ByteSize, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    TomlConfigSettingsSource,
)

from trackd.address import parse_address
from trackd.message_url import SCHEMES
from trackd.setting_file import config_file
from trackd.setting_kinds import (
    FEED,
    GIB,
    KIB,
    LIMITS,
    MEMORY,
    MIB,
    NEWS,
    TIB,
    UNSAFE,
    Schemes,
    Size,
    beyond_loopback,
)
from trackd.setting_kinds import setting as _setting
from trackd.setting_kinds import within as _within
from trackd.setting_process import ENV_PREFIX, ProcessSettings


class Settings(ProcessSettings):
    """What the server was told. Immutable; make it with `load`, or directly in a test."""

    stream_batches_in_flight_max: int = _setting(
        32,
        LIMITS,
        "Batches of one ingest stream that wait for their commit; beyond it the server stops"
        " reading that stream until an answer is out.",
        ge=1,
        le=10_000,
    )
    ingest_queue_events_max: int = _setting(
        50_000,
        LIMITS,
        "Events of one partition that wait for their commit; beyond it streams are not read, and"
        " AppendEvents answers RESOURCE_EXHAUSTED with RetryInfo.",
        ge=1_000,
        le=10_000_000,
    )
    unary_ingest_in_flight_max: int = _setting(
        1_000,
        LIMITS,
        "AppendEvents calls at work at once; beyond it they answer RESOURCE_EXHAUSTED with"
        " RetryInfo.",
        ge=1,
        le=1_000_000,
    )
    reads_in_flight_max: int = _setting(
        2_000,
        LIMITS,
        "Read calls at work at once; beyond it they answer RESOURCE_EXHAUSTED with RetryInfo.",
        ge=1,
        le=1_000_000,
    )
    streams_max: int = _setting(
        10_000,
        LIMITS,
        "Ingest streams open at once; beyond it a new one ends with RESOURCE_EXHAUSTED and"
        " RetryInfo.",
        ge=1,
        le=1_000_000,
    )
    subscriptions_max: int = _setting(
        100,
        LIMITS,
        "Named subscriptions, those of endpoints left out; one more is refused with"
        " RESOURCE_EXHAUSTED.",
        ge=1,
        le=10_000,
    )
    consumers_max: int = _setting(
        1_000,
        LIMITS,
        "ConsumeChanges calls open at once; beyond it a new one ends with RESOURCE_EXHAUSTED and"
        " RetryInfo.",
        ge=1,
        le=100_000,
    )
    subscription_window_max: int = _setting(
        20_000,
        LIMITS,
        "Changes of one subscription and partition between its cursor and what it has read; from"
        " half of it on, what holds the cursor gets a row of its own.",
        ge=1_000,
        le=1_000_000,
    )
    subscription_waiting_max: int = _setting(
        100_000,
        LIMITS,
        "Changes of one subscription that wait for another attempt, or behind one that does;"
        " beyond it the subscription reads no further, which shows as its lag.",
        ge=1_000,
        le=10_000_000,
    )
    subscription_parked_max: int = _setting(
        1_000_000,
        LIMITS,
        "Parked changes of one subscription; beyond it the subscription reads no further, which"
        " shows as its lag, until some are redriven or dropped.",
        ge=1_000,
        le=100_000_000,
    )
    subscription_alarm_share: float = _setting(
        0.1,
        LIMITS,
        "The share of what is kept of the log that is left to a subscription when `lag_alarm` is"
        " raised: it is about to lose changes.",
        ge=0.0,
        le=0.9,
    )
    message_bytes_max: Annotated[Size, _within(64 * KIB, 64 * MIB)] = _setting(
        ByteSize(MIB),
        LIMITS,
        "Size of one received message; a larger one ends its call with RESOURCE_EXHAUSTED.",
    )
    response_bytes_max: Annotated[Size, _within(256 * KIB, 64 * MIB)] = _setting(
        ByteSize(4 * MIB),
        LIMITS,
        "Size of one answer; a page of a timeline that would be larger is cut short, with a token"
        " for the rest, and a look-up of too many waybills ends with RESOURCE_EXHAUSTED.",
    )
    # As the log keeps the length of an event in 16 bits, with room for what the server adds.
    event_bytes_max: Annotated[Size, _within(KIB, 60 * KIB)] = _setting(
        ByteSize(32 * KIB),
        LIMITS,
        "Size of one event as it is sent; a larger one is rejected with FIELD_TOO_LONG.",
    )
    waybill_events_max: int = _setting(
        10_000,
        LIMITS,
        "Events of one waybill; one more is rejected with INVALID_FIELD, so that a runaway device"
        " cannot make one timeline endless.",
        ge=100,
        le=1_000_000,
    )
    future_tolerance_ms: int = _setting(
        600_000,
        LIMITS,
        "Milliseconds that an event may be ahead of the server's clock; a later one is rejected"
        " with TIME_OUT_OF_RANGE.",
        ge=0,
        le=86_400_000,
    )
    commit_events_max: int = _setting(
        1_000,
        LIMITS,
        "Events that one commit of a partition holds; what would be more waits for the next one;"
        " a batch that is larger by itself has a commit of its own.",
        ge=1,
        le=4_000,
    )

    status_cache_bytes: Annotated[Size, _within(MIB, TIB)] = _setting(
        ByteSize(384 * MIB),
        MEMORY,
        "Memory for hot statuses, all partitions together; beyond it the coldest is read from"
        " disk again.",
    )
    write_back_events_max: int = _setting(
        800_000,
        MEMORY,
        "Events, all partitions together, within which timelines and statuses are written back from"
        " memory behind the log. It bounds what is in memory only, and with what memtables hold the"
        " start after a crash.",
        ge=1_000,
        le=1_000_000_000,
    )
    block_cache_bytes: Annotated[Size, _within(MIB, TIB)] = _setting(
        ByteSize(256 * MIB),
        MEMORY,
        "Memory for blocks read from disk, all partitions together; beyond it the coldest is read"
        " again.",
    )
    write_buffer_bytes: Annotated[Size, _within(MIB, 4 * GIB)] = _setting(
        ByteSize(32 * MIB),
        MEMORY,
        "Memory that one table of a partition fills before it is written out as a file; larger"
        " means fewer, larger files.",
    )
    background_threads: int = _setting(
        2,
        MEMORY,
        "Threads that write out and compact files, all partitions together; too few shows as"
        " stalls in `trackd stats`.",
        ge=1,
        le=64,
    )
    disk_reserve_bytes: Annotated[Size, _within(0, TIB)] | None = _setting(
        None,
        MEMORY,
        "Free disk space below which writes answer RESOURCE_EXHAUSTED while reads go on; by"
        " default the smaller of 1GiB and a quarter of the file system.",
    )
    mark_sync_interval_s: float = _setting(
        1.0,
        MEMORY,
        "Seconds between fsyncs of the mark by which the next start notices acknowledged data"
        " that a disk has lost; longer means that a later loss may go unnoticed.",
        ge=0.01,
        le=60,
    )

    feed_retention_age_s: int = _setting(
        604_800,
        FEED,
        "Seconds that changes are kept for subscribers; who comes back later is told"
        " POSITION_EXPIRED.",
        ge=1,
        le=3_153_600_000,
    )
    feed_retention_bytes: Annotated[Size, _within(MIB, TIB)] = _setting(
        ByteSize(64 * GIB),
        FEED,
        "Size of the change log, all partitions together, before compression; beyond it the oldest"
        " changes are let go before their age, and who needs them is told POSITION_EXPIRED.",
    )
    feed_memory_bytes: Annotated[Size, _within(MIB, TIB)] = _setting(
        ByteSize(64 * MIB),
        FEED,
        "Memory for the newest changes, all partitions together; who is further behind is served"
        " from disk.",
    )
    feed_watches_max: int = _setting(
        2_000,
        FEED,
        "WatchChanges streams open at once; beyond it a new one ends with RESOURCE_EXHAUSTED and"
        " RetryInfo. One whose caller never reads takes up to 700 KiB, and less than 256 KiB once"
        " 32 are open.",
        ge=1,
        le=100_000,
    )
    feed_heartbeat_s: float = _setting(
        15.0,
        FEED,
        "Seconds after which a watch that has nothing to tell says that it is caught up.",
        ge=0.1,
        le=3_600,
    )

    endpoints_max: int = _setting(
        100,
        NEWS,
        "Endpoints that are told by the notifier, each with a subscription of its own; one more is"
        " refused with RESOURCE_EXHAUSTED.",
        ge=1,
        le=10_000,
    )
    deliveries_kept_max: int = _setting(
        200,
        NEWS,
        "Attempts in the delivery log of an endpoint; the oldest makes room for one more.",
        ge=1,
        le=1_000,
    )
    secrets_key_file: Path | None = _setting(
        None,
        NEWS,
        "File of the key that the secrets of endpoints are encrypted with, made when the first is"
        " kept; by default beside the data directory, with its name and .key.",
    )
    message_schemes: Schemes = _setting(
        ",".join(SCHEMES),
        NEWS,
        "Schemes of apprise that endpoints of kind MESSAGE may have, with commas between; another"
        " one is refused.",
    )

    unsafe_plaintext: bool = _setting(
        False,
        UNSAFE,
        "Listen beyond this machine without TLS: whoever reaches the port can read and write.",
    )
    unsafe_accept_data_loss: bool = _setting(
        False,
        UNSAFE,
        "Start although acknowledged data is missing (exit code 78 otherwise), as a new data set:"
        " positions handed out before are refused.",
    )

    unsafe_allow_local_webhooks: bool = _setting(
        False,
        UNSAFE,
        "Take endpoints on this machine, by http or https on any port: for trying things out.",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  pydantic-settings passes it
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003  pydantic-settings passes it
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, environment, TOML file: no .env file and no secrets directory."""
        file = config_file(init_settings(), env_settings())
        return (init_settings, env_settings, TomlConfigSettingsSource(settings_cls, file))

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        for name in ("grpc", "metrics", "http"):
            address = parse_address(getattr(self, name))
            if not address.loopback and not self.unsafe_plaintext:
                raise ValueError(beyond_loopback(name, address, ENV_PREFIX))
        if self.commit_events_max > self.ingest_queue_events_max:
            raise ValueError(
                f"commit_events_max = {self.commit_events_max} must not be larger than"
                f" ingest_queue_events_max = {self.ingest_queue_events_max}"
            )
        key, data = self.secrets_key_file, self.data.absolute()
        if key is not None and key.absolute().is_relative_to(data):
            raise ValueError(f"secrets_key_file = {key} must not be in the data directory {data}")
        return self


def panel_of(field: FieldInfo) -> str:
    """The heading a field is shown under."""
    extra = field.json_schema_extra
    assert isinstance(extra, dict)
    return str(extra["panel"])


def flag_of(name: str) -> str:
    """The command line's name of a setting: `commit_events_max` is `--commit-events-max`."""
    return "--" + name.replace("_", "-")


def env_of(name: str) -> str:
    """The environment's name of a setting."""
    return ENV_PREFIX + name.upper()
