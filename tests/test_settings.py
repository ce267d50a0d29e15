"""Settings come from flags, environment, file and defaults, in that order."""

import tomllib
from pathlib import Path

import pytest
from pydantic import ValidationError

from trackd.address import Address, parse_address
from trackd.configuration import effective, load
from trackd.setting_file import SettingsError
from trackd.setting_kinds import GIB, KIB, MIB, human_size
from trackd.settings import (
    Settings,
    env_of,
    flag_of,
    panel_of,
)

# Settings whose value is one of a few words or a place, and not a number with limits.
_WITHOUT_LIMITS = {
    *("config", "data", "grpc", "metrics", "http", "advertise_host", "loop", "reflection"),
    *("log_level", "log_format", "unsafe_plaintext", "unsafe_accept_data_loss"),
    *("secrets_key_file", "message_schemes", "unsafe_allow_local_webhooks"),
}


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the machine that runs the tests takes part."""
    for name in Settings.model_fields:
        monkeypatch.delenv(env_of(name), raising=False)


def refusal(**flags: object) -> str:
    """What is said of flags that cannot be used."""
    with pytest.raises(SettingsError) as refused:
        load(flags)
    return str(refused.value)


def test_a_flag_goes_before_the_environment_before_the_file_before_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each source decides only what no source before it decides."""
    file = tmp_path / "trackd.toml"
    file.write_text('partitions = 2\nworkers = 2\nloop = "asyncio"\ngrpc = "127.0.0.1:1"\n')
    monkeypatch.setenv("TRACKD_PARTITIONS", "3")
    monkeypatch.setenv("TRACKD_WORKERS", "3")
    monkeypatch.setenv("TRACKD_CONFIG", str(file))
    settings = load({"partitions": "4"})
    assert (settings.partitions, settings.workers, settings.loop) == (4, 3, "asyncio")
    assert (settings.grpc, settings.metrics) == ("127.0.0.1:1", "127.0.0.1:9551")


def test_each_setting_tells_where_it_came_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `trackd config` shows: the source that decided, by the name people used."""
    file = tmp_path / "trackd.toml"
    file.write_text("reflection = true\n")
    monkeypatch.setenv("TRACKD_GRPC", "127.0.0.1:7")
    origins = {
        item.name: item.origin
        for item in effective({"commit_events_max": "500", "config": str(file)})
    }
    assert origins["commit_events_max"] == "flag --commit-events-max"
    assert origins["grpc"] == "environment TRACKD_GRPC"
    assert origins["reflection"] == f"file {file}"
    assert origins["loop"] == "default"


def test_what_is_shown_as_toml_is_read_back_as_it_was() -> None:
    """`trackd config > trackd.toml` gives a file that `--config` takes, with the same outcome."""
    shown = effective({"data": 'we"ird\\dir', "status_cache_bytes": "1500KiB", "partitions": 5})
    text = "\n".join(
        f"{item.name} = {item.toml()}"
        for item in shown
        if item.toml() is not None and item.name != "config"
    )
    values = tomllib.loads(text)
    assert load(values) == load(
        {"data": 'we"ird\\dir', "status_cache_bytes": "1500KiB", "partitions": 5}
    )


def test_an_empty_variable_is_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Container files set variables to nothing where nothing is meant."""
    monkeypatch.setenv("TRACKD_PARTITIONS", "")
    assert load().partitions is None


def test_settings_cannot_be_changed() -> None:
    """Whoever holds the settings can rely on them."""
    with pytest.raises(ValidationError):
        load().partitions = 3


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ({"partitions": "300"}, "partitions = 300 (flag --partitions): must be a number, 1 to 256"),
        ({"workers": "many"}, "workers = many (flag --workers): must be a number, 1 to 256"),
        ({"shutdown_grace_s": "nan"}, "must be a number, 0 to 3600"),
        ({"message_bytes_max": "1KiB"}, "message_bytes_max = 1KiB (flag --message-bytes-max): "),
        ({"message_bytes_max": "1KiB"}, "must be 64KiB to 64MiB"),
        ({"block_cache_bytes": "1MiB or so"}, "must be a size such as 64MiB, 1GiB or 1048576"),
        ({"block_cache_bytes": "-1"}, "must be a size"),
        ({"loop": "trio"}, "loop = trio (flag --loop): must be 'uvloop' or 'asyncio'"),
        ({"reflection": "perhaps"}, "must be true or false"),
        ({"grpc": "localhost"}, "must be HOST:PORT"),
        ({"message_schemes": "slack;sms"}, "must be schemes such as slack,sms"),
        ({"partition": "1"}, "partition (flag --partition): there is no setting of this name"),
        ({"config": "nowhere.toml"}, "config = nowhere.toml: cannot be read: No such file"),
        ({"commit_events_max": 2000, "ingest_queue_events_max": 1000}, "must not be larger than"),
    ],
)
def test_a_refusal_names_the_setting_its_value_and_the_limit(
    flags: dict[str, object], told: str
) -> None:
    """People can mend what they typed without reading code."""
    assert told in refusal(**flags)


def test_every_fault_is_told_at_once() -> None:
    """Nobody has to mend one setting only to hear of the next."""
    assert len(refusal(partitions=0, workers=0, loop="x").splitlines()) == 3


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("partitons = 3", "partitons (file "),
        ("partitions = ", "is not TOML"),
        ('config = "other.toml"', "a file cannot name another file"),
        ('grpc = "0.0.0.0:50551"', "without TLS"),
    ],
)
def test_a_fault_in_the_file_names_the_file(tmp_path: Path, text: str, told: str) -> None:
    """A misspelt key is never silently ignored."""
    file = tmp_path / "trackd.toml"
    file.write_text(text)
    assert told in refusal(config=str(file))


@pytest.mark.parametrize("name", ["grpc", "metrics", "http"])
@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "192.0.2.1", "tracking.example"])
def test_other_machines_reach_it_only_when_that_is_said(name: str, host: str) -> None:
    """Plain text beyond loopback takes the flag that says so, for every address."""
    assert f"{name} = {host}:1 can be reached" in refusal(**{name: f"{host}:1"})
    assert getattr(load({name: f"{host}:1", "unsafe_plaintext": True}), name) == f"{host}:1"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:50551", Address("127.0.0.1", 50551)),
        ("localhost:0", Address("localhost", 0)),
        ("[::1]:65535", Address("::1", 65535)),
    ],
)
def test_a_place_is_read_and_written_alike(text: str, address: Address) -> None:
    """HOST:PORT and [IPV6]:PORT come back as they were written; loopback is known as such."""
    assert parse_address(text) == address
    assert str(address) == text
    assert address.loopback


@pytest.mark.parametrize(
    "text", ["", "host", ":1", "host:", "host:65536", "host:-1", "::1:1", "[::1]", "[h]:1", "h:１"]
)
def test_what_is_no_place_is_refused(text: str) -> None:
    """Neither half of HOST:PORT is guessed."""
    with pytest.raises(ValueError, match="must be"):
        parse_address(text)


@pytest.mark.parametrize(
    ("text", "size"), [("256MiB", 256 * MIB), ("1 GiB", GIB), ("1.5KiB", 1536), ("4MB", 4_000_000)]
)
def test_sizes_are_read_with_their_unit(text: str, size: int) -> None:
    """Binary and decimal units mean what they say."""
    assert load({"disk_reserve_bytes": text}).disk_reserve_bytes == size


@pytest.mark.parametrize("size", [0, 1, 1000, KIB, 3 * KIB, 256 * MIB, GIB, GIB + 1])
def test_a_size_shown_to_people_is_read_back_exactly(size: int) -> None:
    """No digit is lost between what `trackd config` shows and what is in force."""
    assert load({"disk_reserve_bytes": human_size(size)}).disk_reserve_bytes == size


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_every_setting_is_explained_and_bounded(name: str) -> None:
    """A sentence, a heading, and for numbers both limits: no bound without a name and a limit."""
    field = Settings.model_fields[name]
    assert field.description
    assert field.description.endswith(".")
    assert panel_of(field)
    assert flag_of(name) == "--" + name.replace("_", "-")
    if name not in _WITHOUT_LIMITS:
        assert "must be" in refusal(**{name: -1})
        assert "must be" in refusal(**{name: 10**15})
