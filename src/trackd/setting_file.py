"""The TOML file of settings: which one it is, if any. Knows no setting but `config`."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class SettingsError(ValueError):
    """A setting cannot be used; the message names it, its value, its origin and the limit."""


def config_file(flags: Mapping[str, Any], environment: Mapping[str, Any]) -> Path | None:
    """The TOML file to read, if any; pydantic-settings would take a missing one for empty."""
    named = flags.get("config") or environment.get("config")
    if named is None:
        return None
    path = Path(named).expanduser()
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"config = {path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise SettingsError(f"config = {path}: is not TOML: {error}") from None
    if "config" in values:
        raise SettingsError(f"config = {path}: a file cannot name another file; remove `config`")
    return path
