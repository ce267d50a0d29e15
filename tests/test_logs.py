"""Logs: one shape whoever logs, and never a waybill number in them."""

import io
import json
import logging
from collections.abc import Iterator
from datetime import UTC, datetime

import orjson
import pytest
import structlog

from trackd import logs


@pytest.fixture
def out() -> Iterator[io.StringIO]:
    """Where the logs of a test go; logging is as it was afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield io.StringIO()
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


def lines(out: io.StringIO) -> list[dict[str, object]]:
    """What was logged as JSON."""
    return [orjson.loads(line) for line in out.getvalue().splitlines()]


def test_structlog_and_the_standard_library_come_out_in_one_shape(out: io.StringIO) -> None:
    """Event, level, logger and a UTC time, whether we log or gRPC does."""
    logs.set_up(level="info", log_format="json", stream=out)
    structlog.get_logger("ours").info("ready", port=1)
    logging.getLogger("grpc._server").warning("closed after %d s", 3)
    ours, theirs = lines(out)
    assert (ours["event"], ours["level"], ours["logger"], ours["port"]) == (
        *("ready", "info", "ours"),
        1,
    )
    assert (theirs["event"], theirs["level"]) == ("closed after 3 s", "warning")
    for line in (ours, theirs):
        assert datetime.fromisoformat(str(line["timestamp"])).tzinfo == UTC


def test_a_level_below_the_threshold_is_not_written(out: io.StringIO) -> None:
    """`--log-level` holds for both kinds of logger; chatter of libraries starts at warning."""
    logs.set_up(level="info", log_format="json", stream=out)
    structlog.get_logger().debug("ours")
    logging.getLogger("theirs").debug("theirs")
    logging.getLogger("asyncio").info("Using selector")
    assert out.getvalue() == ""


@pytest.mark.parametrize("value", ["not UTF-8: \udcff", 1 << 64])
def test_whatever_is_told_is_a_line_of_json(out: io.StringIO, value: object) -> None:
    """What a log would not take is lost with it, and a traceback stands in its place."""
    logs.set_up(level="info", log_format="json", stream=out)
    structlog.get_logger().info("opening", data=value)
    (line,) = out.getvalue().splitlines()
    assert json.loads(line)["data"] == value


@pytest.mark.parametrize("key", ["waybill", "waybill_number"])
@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_waybill_is_only_ever_a_hash(out: io.StringIO, key: str, log_format: logs.Format) -> None:
    """Even a careless call cannot put a waybill number into a log."""
    logs.set_up(level="info", log_format=log_format, stream=out)
    structlog.get_logger().info("stored", **{key: "SF1234567890"})
    assert "SF1234567890" not in out.getvalue()
    assert logs.waybill_hash("SF1234567890") in out.getvalue()


def test_hashes_agree_within_a_data_set_and_not_beyond(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logs of one data set can be put together over restarts; others tell nothing about them."""
    monkeypatch.setattr(logs._Salt, "value", b"random")
    before = logs.waybill_hash("SF1234567890")
    logs.salt_waybills("data-set-1")
    first = logs.waybill_hash("SF1234567890")
    logs.salt_waybills("data-set-2")
    second = logs.waybill_hash("SF1234567890")
    logs.salt_waybills("data-set-1")
    assert logs.waybill_hash("SF1234567890") == first
    assert len({before, first, second}) == 3


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_traceback_does_not_show_the_values_of_variables(
    out: io.StringIO, log_format: logs.Format
) -> None:
    """What a failing function held may be a whole event."""
    logs.set_up(level="info", log_format=log_format, stream=out)
    remark = "call " + "13800138000"
    try:
        raise RuntimeError(len(remark))
    except RuntimeError:
        structlog.get_logger().exception("failed")
    assert "RuntimeError" in out.getvalue()
    assert remark not in out.getvalue()


def test_a_format_is_chosen_by_where_the_log_goes(out: io.StringIO) -> None:
    """`auto` writes JSON where no terminal is, so that a collector needs no flag."""
    logs.set_up(level="info", log_format="auto", stream=out)
    structlog.get_logger().info("ready")
    assert lines(out)[0]["event"] == "ready"


def test_the_last_set_up_counts(out: io.StringIO) -> None:
    """Nothing is written twice when it is called again."""
    logs.set_up(level="info", log_format="console", stream=io.StringIO())
    logs.set_up(level="info", log_format="json", stream=out)
    structlog.get_logger().info("once")
    assert len(lines(out)) == 1
