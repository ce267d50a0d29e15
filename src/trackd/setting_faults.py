"""What is wrong with settings, as sentences: the setting, its value, where that came from, and the
limit.

For every process that reads a model of settings; knows no setting by name.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_settings import BaseSettings

from trackd.setting_kinds import NOT_A_SIZE


def sentences(
    error: ValidationError, model: type[BaseSettings], origins: Mapping[str, str]
) -> list[str]:
    """A sentence for each fault of pydantic. origins: where each setting came from that is not a
    default.
    """
    return [_sentence(dict(fault), model, origins) for fault in error.errors()]


def _sentence(
    fault: Mapping[str, Any], model: type[BaseSettings], origins: Mapping[str, str]
) -> str:
    if not fault["loc"]:
        return str(fault["ctx"]["error"])
    name = _name(str(fault["loc"][0]), model)
    origin = origins.get(name, "default")
    if fault["type"] == "extra_forbidden":
        return f"{name} ({origin}): there is no setting of this name"
    return f"{name} = {fault['input']} ({origin}): {_wanted(name, fault, model)}"


def _name(told: str, model: type[BaseSettings]) -> str:
    """Pydantic tells a setting by its alias, where it came by that."""
    aliases = {field.validation_alias: name for name, field in model.model_fields.items()}
    return aliases.get(told, told)


def _wanted(name: str, fault: Mapping[str, Any], model: type[BaseSettings]) -> str:
    kind = fault["type"]
    if kind == "value_error":
        return str(fault["ctx"]["error"])
    if kind == "literal_error":
        return f"must be {fault['ctx']['expected']}"
    if kind == "byte_size":
        return NOT_A_SIZE
    if kind.startswith("bool"):
        return "must be true or false"
    limits = {type(item).__name__: item for item in model.model_fields[name].metadata}
    if "Ge" in limits and "Le" in limits:
        return f"must be a number, {limits['Ge'].ge} to {limits['Le'].le}"
    if "Gt" in limits and "Le" in limits:
        return f"must be a number, more than {limits['Gt'].gt} and at most {limits['Le'].le}"
    return str(fault["msg"])
