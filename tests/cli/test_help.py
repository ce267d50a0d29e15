"""Help: quick, complete, and readable by somebody who sees trackd for the first time."""

import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from trackd import __version__
from trackd.cli.main import COMMANDS, application
from trackd.settings import Settings, flag_of

_NAMES = [command.name for command in COMMANDS]


def test_the_list_of_commands_loads_none_of_them() -> None:
    """`trackd --help` is quick because it imports no gRPC, no settings and no logs."""
    probe = (
        "import sys\n"
        "from trackd.cli.main import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules}))"
    )
    ended = subprocess.run([sys.executable, "-c", probe], capture_output=True, check=True)
    shown, loaded = ended.stdout.decode().strip().rsplit("\n", 1)
    assert all(name in shown for name in _NAMES)
    assert not {"grpc", "google", "pydantic", "structlog", "orjson"} & set(loaded.split())


@pytest.mark.parametrize("name", _NAMES)
def test_every_command_explains_itself(name: str) -> None:
    """What it does, each of its options, and examples to copy."""
    ran = CliRunner().invoke(
        application(name), [name, "--help"], env={"COLUMNS": "120", "TERM": "dumb"}
    )
    assert ran.exit_code == 0
    assert "Examples" in ran.output
    assert ran.output.count(f"trackd {name}") >= 2
    loaded = application(name)
    helps = [info.help for info in loaded.registered_commands if info.name == name]
    helps += [group.help for group in loaded.registered_groups if group.name == name]
    assert helps[0]
    for line in ran.output.splitlines():
        option = line.strip("│ ").split(" ")[0]
        if option.startswith("--"):
            assert line.strip("│ ").removeprefix(option).strip(), f"{option} is not explained"


def test_serve_has_a_flag_for_every_setting() -> None:
    """The flags are made from the settings, so none is missing."""
    ran = CliRunner().invoke(application("serve"), ["serve", "--help"], env={"COLUMNS": "200"})
    for name, field in Settings.model_fields.items():
        assert flag_of(name) in ran.output
        assert field.description
        assert field.description.split()[0] in ran.output


def test_the_module_is_the_command() -> None:
    """`python -m trackd` does what `trackd` does, where it is not on PATH."""
    ended = subprocess.run(
        [sys.executable, "-m", "trackd", "--version"],
        capture_output=True,
        check=True,
        env=dict(os.environ),
    )
    assert ended.stdout.decode() == f"trackd {__version__}\n"


def test_an_unknown_command_is_a_usage_error() -> None:
    """Exit code 2, as for every other slip."""
    ran = CliRunner().invoke(application("trakc"), ["trakc"])
    assert ran.exit_code == 2
    assert "trakc" in ran.output
