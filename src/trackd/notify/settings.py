"""Every setting of the notifier: its name, default, unit and limits, and what is beyond a bound.

Named and read as the server's are: flag, then environment (TRACKD_NOTIFY_…; TRACKD_SERVER for the
server), then default.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict

from trackd.address import parse_address
from trackd.message_url import SCHEMES
from trackd.notify.messages.cities import read_cities
from trackd.notify.messages.news import Kind
from trackd.notify.messages.wording import WAYBILL_PLACE
from trackd.setting_faults import sentences
from trackd.setting_file import SettingsError
from trackd.setting_kinds import Schemes, beyond_loopback
from trackd.settings import flag_of

ENV_PREFIX = "TRACKD_NOTIFY_"

WHERE = "Where"
LOGS = "Logs"
LIMITS = "Limits"
MESSAGES = "Messages to people"
UNSAFE = "Unsafe"


def _place(text: str) -> str:
    return str(parse_address(text))


def _kinds(text: str) -> str:
    for name in text.split(",") if text else ():
        if name not in list(Kind):
            raise ValueError(f"must be of {', '.join(Kind)}, with commas between")
    return text


def _zone(text: str) -> str:
    try:
        ZoneInfo(text)
    except (ValueError, OSError, LookupError):
        raise ValueError("is no time zone, such as Asia/Shanghai") from None
    return text


def _cities(path: Path | None) -> Path | None:
    if path is not None:
        read_cities(path)
    return path


def _link(text: str) -> str:
    if text and (not text.startswith("https://") or WAYBILL_PLACE not in text):
        raise ValueError(f"must be https:// and hold {WAYBILL_PLACE}")
    return text


Place = Annotated[str, AfterValidator(_place)]


def _setting(default: Any, panel: str, description: str, **more: Any) -> Any:
    return Field(default, description=description, json_schema_extra={"panel": panel}, **more)


class NotifySettings(BaseSettings):
    """What the notifier was told."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        populate_by_name=True,
    )

    server: Place = _setting(
        "127.0.0.1:50551",
        WHERE,
        "HOST:PORT of the server's gRPC API.",
        validation_alias="TRACKD_SERVER",
    )
    metrics: Place = _setting(
        "127.0.0.1:9552", WHERE, "HOST:PORT of the Prometheus metrics; port 0 takes a free one."
    )
    loop: Literal["uvloop", "asyncio"] = _setting(
        "uvloop", WHERE, "The event loop: uvloop takes less CPU, asyncio is Python's own."
    )
    log_level: Literal["debug", "info", "warning", "error"] = _setting(
        "info", LOGS, "The least level that is written."
    )
    log_format: Literal["auto", "console", "json"] = _setting(
        "auto", LOGS, "console for people, json for machines; auto is console on a terminal."
    )

    endpoint_attempts_max: int = _setting(
        16,
        LIMITS,
        "Attempts of one endpoint at once, in this process; what is more waits.",
        ge=1,
        le=1_000,
    )
    connect_timeout_s: float = _setting(
        3.0,
        LIMITS,
        "Seconds to look a name up, connect and agree on TLS; beyond it the attempt has failed.",
        gt=0,
        le=60,
    )
    total_timeout_s: float = _setting(
        15.0,
        LIMITS,
        "Seconds of an attempt as a whole; beyond it the attempt has failed. The server gives a"
        " delivery to somebody else after a minute.",
        gt=0,
        le=25,
    )
    answer_bytes_max: int = _setting(
        65_536,
        LIMITS,
        "Bytes of an answer's body that are read; beyond it the connection is closed, and the"
        " answer's status counts.",
        ge=0,
        le=1_048_576,
    )
    breaker_failures_max: int = _setting(
        10,
        LIMITS,
        "Failures of an endpoint in a row; beyond it the endpoint is left alone for a while, which"
        " costs no attempts.",
        ge=1,
        le=10_000,
    )
    breaker_pause_s: float = _setting(
        5.0,
        LIMITS,
        "Seconds of the first such pause, after which one attempt is made; each pause that this"
        " does not end is twice as long.",
        gt=0,
        le=3_600,
    )
    breaker_pause_s_max: float = _setting(
        300.0, LIMITS, "Seconds of the longest such pause.", gt=0, le=86_400
    )
    shutdown_grace_s: float = _setting(
        20.0,
        LIMITS,
        "Seconds that attempts have to end after SIGTERM; what still runs then is delivered again"
        " by another notifier or the next one.",
        ge=0,
        le=3_600,
    )

    message_schemes: Schemes = _setting(
        ",".join(SCHEMES),
        MESSAGES,
        "The schemes of message URLs that may be used, with commas between; the server has the same"
        " setting for what may be made.",
    )
    message_threads: int = _setting(
        16, MESSAGES, "Texts that are sent at once; what is more waits.", ge=1, le=256
    )
    message_timeout_s: float = _setting(
        30.0, MESSAGES, "Seconds of one text; beyond it the attempt has failed.", gt=0, le=50
    )
    message_urgent: Annotated[str, AfterValidator(_kinds)] = _setting(
        "",
        MESSAGES,
        "Kinds of news that are told in quiet hours too, with commas between: correction,"
        " milestone, problem, resolved, status.",
    )
    message_time_zone: Annotated[str, AfterValidator(_zone)] = _setting(
        "Asia/Shanghai", MESSAGES, "The zone of times in texts, where an endpoint names none."
    )
    message_cities: Annotated[Path | None, AfterValidator(_cities)] = _setting(
        None,
        MESSAGES,
        "CSV file with the columns facility_code,zh,en: the city that a text names as the place; a"
        " facility that is not there is not told.",
    )
    tracking_link: Annotated[str, AfterValidator(_link)] = _setting(
        "", MESSAGES, "A URL with {waybill} in it that every text ends with; empty for none."
    )
    tencent_secret_id: str = _setting(
        "", MESSAGES, "The account at Tencent Cloud that sends sms://; empty for none."
    )
    tencent_secret_key: SecretStr = _setting(
        SecretStr(""), MESSAGES, "Its key. In the environment only."
    )
    tencent_app_id: str = _setting("", MESSAGES, "Its SdkAppId.")
    tencent_sign_name: str = _setting("", MESSAGES, "Its approved signature.")
    tencent_template_zh: str = _setting("", MESSAGES, "Its approved template in Chinese.")
    tencent_template_en: str = _setting("", MESSAGES, "Its approved template in English.")
    tencent_region: str = _setting("ap-guangzhou", MESSAGES, "Its region.")

    unsafe_plaintext: bool = _setting(
        False,
        UNSAFE,
        "Show the metrics beyond this machine without TLS: whoever reaches the port can read them.",
    )
    unsafe_allow_local_webhooks: bool = _setting(
        False,
        UNSAFE,
        "Deliver to this machine too, by http or https on any port: for trying things out.",
    )

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if not (parse_address(self.metrics).loopback or self.unsafe_plaintext):
            raise ValueError(beyond_loopback("metrics", self.metrics, ENV_PREFIX))
        return self


UNSAFE_FLAGS = tuple(name for name in NotifySettings.model_fields if name.startswith("unsafe_"))


def load(flags: Mapping[str, Any] | None = None) -> NotifySettings:
    """The settings from flags and environment. `flags` holds only what was given.

    SettingsError when a value is invalid.
    """
    given = dict(flags or {})
    try:
        return NotifySettings(**given)
    except ValidationError as error:
        faults = sentences(error, NotifySettings, _origins(given))
        raise SettingsError("\n".join(faults)) from None


def _origins(flags: Mapping[str, Any]) -> dict[str, str]:
    """Where each setting that is not a default came from."""
    variables = {
        name: str(field.validation_alias or f"{ENV_PREFIX}{name.upper()}")
        for name, field in NotifySettings.model_fields.items()
    }
    environment = EnvSettingsSource(NotifySettings)()
    origins = {
        name: f"environment {variable}"
        for name, variable in variables.items()
        if name in environment or variable in environment
    }
    return origins | {name: f"flag {flag_of(name)}" for name in flags}
