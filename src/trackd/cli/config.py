"""`trackd config`: the settings as the server would use them, a TOML file with their origins."""

from typing import Annotated, Any

import typer

from trackd.cli.setting_flags import given, with_setting_flags
from trackd.cli.terminal import USAGE, examples, fail
from trackd.configuration import Effective, effective
from trackd.setting_file import SettingsError

EPILOG = examples(
    "trackd config",
    "trackd config --check --config /etc/trackd.toml",
    "trackd config > trackd.toml",
)


@with_setting_flags
def command(
    check: Annotated[
        bool, typer.Option("--check", help="Only say whether the settings are valid.")
    ] = False,
    **flags: Any,
) -> None:
    """Show every setting, its value and where it came from.

    Takes the flags of [bold]trackd serve[/bold], the environment and the file that --config names,
    and prints what the server would use: a TOML file that --config reads back. Invalid settings are
    named on standard error, with exit code 2.
    """
    try:
        settings = effective(given(flags))
    except SettingsError as error:
        fail(str(error), code=USAGE)
    if check:
        typer.echo("the settings are valid")
        return
    panel = None
    for setting in settings:
        if setting.panel != panel:
            panel = setting.panel
            typer.echo(f"\n# {panel}")
        typer.echo(_line(setting))


def _line(setting: Effective) -> str:
    value = setting.toml()
    if setting.name == "config":
        # A file cannot name another file, so this line must stay a comment.
        return f"# config = {value or 'none'}  # {setting.origin}"
    if value is None:
        return f"# {setting.name} is chosen at the start  # {setting.origin}"
    return f"{setting.name} = {value}  # {setting.origin}"
