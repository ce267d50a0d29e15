"""Where the settings come from: flag, then environment, then TOML file, then default.

Loads `Settings` and says where each value came from. Knows no setting by name.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import EnvSettingsSource, InitSettingsSource, TomlConfigSettingsSource

from trackd.setting_faults import sentences
from trackd.setting_file import SettingsError, config_file
from trackd.setting_kinds import human_size
from trackd.settings import Settings, env_of, flag_of, panel_of


@dataclass(frozen=True, slots=True)
class Effective:
    """One setting as the server would use it."""

    name: str
    value: Any  # as in Settings; None when the server chooses at its start
    origin: str  # "flag --data", "environment TRACKD_DATA", "file trackd.toml" or "default"
    field: FieldInfo

    @property
    def panel(self) -> str:
        """The heading it is shown under."""
        return panel_of(self.field)

    def toml(self) -> str | None:
        """Its value as TOML, sizes with their unit; None where TOML has no value for it."""
        if self.value is None:
            return None
        if isinstance(self.value, bool):
            return str(self.value).lower()
        if self.name.endswith("_bytes") or self.name.endswith("_bytes_max"):
            return f'"{human_size(self.value)}"'
        if isinstance(self.value, int | float):
            return str(self.value)
        # A TOML basic string escapes what JSON escapes, and one character more.
        return json.dumps(str(self.value), ensure_ascii=False).replace("\x7f", "\\u007f")


def load(flags: Mapping[str, Any] | None = None) -> Settings:
    """The settings from flags, environment and file. `flags` holds only what was given.

    SettingsError when a value is invalid, a name unknown, or the file unreadable.
    """
    given = dict(flags or {})
    try:
        return Settings(**given)
    except ValidationError as error:
        origins = _origins(given)
        raise SettingsError("\n".join(sentences(error, Settings, origins))) from None


def effective(flags: Mapping[str, Any] | None = None) -> list[Effective]:
    """Every setting with its value and its origin, in the order of the model; errors as `load`."""
    given = dict(flags or {})
    settings = load(given)
    origins = _origins(given)
    return [
        Effective(name, getattr(settings, name), origins.get(name, "default"), field)
        for name, field in Settings.model_fields.items()
    ]


def _origins(flags: Mapping[str, Any]) -> dict[str, str]:
    """Where each setting that is not a default came from."""
    environment = EnvSettingsSource(Settings)()
    file = config_file(flags, environment)
    origins = dict.fromkeys(TomlConfigSettingsSource(Settings, file)(), f"file {file}")
    origins |= {name: f"environment {env_of(name)}" for name in environment}
    flagged = InitSettingsSource(Settings, dict(flags))()
    return origins | {name: f"flag {flag_of(name)}" for name in flagged}
