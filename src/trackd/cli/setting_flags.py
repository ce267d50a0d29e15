"""The settings as flags: made from the Settings model, so that no flag is written twice.

A flag takes its text as it is; the model reads it, and says what is wrong with it as it would for
the environment or a file.
"""

import inspect
from collections.abc import Callable
from typing import Annotated, Any, get_args

import typer
from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from trackd.setting_kinds import human_size
from trackd.settings import Settings, flag_of, panel_of


def with_setting_flags(function: Callable[..., None]) -> Callable[..., None]:
    """Gives `function`, which takes `**flags`, an option for each setting beside its own."""
    return with_flags_of(Settings, function)


def with_flags_of(model: type[BaseSettings], function: Callable[..., None]) -> Callable[..., None]:
    """The same for the settings of another process. What holds a secret is no flag."""
    own = [
        parameter
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    flags = [
        _parameter(name, field)
        for name, field in model.model_fields.items()
        if field.annotation is not SecretStr
    ]
    # typer reads the signature, which Python lets a function carry beside its real one.
    function.__signature__ = inspect.Signature([*own, *flags])  # type: ignore[attr-defined]
    return function


def given(flags: dict[str, Any]) -> dict[str, Any]:
    """The flags that were given, of all that there are."""
    return {name: value for name, value in flags.items() if value is not None}


def _parameter(name: str, field: FieldInfo) -> inspect.Parameter:
    # A switch has one form only, as every switch is off by default.
    switch = field.annotation is bool
    option = typer.Option(
        flag_of(name),
        help=_help(name, field),
        rich_help_panel=panel_of(field),
        show_default=False,
        metavar=None if switch else _metavar(name, field),
    )
    kind = bool | None if switch else str | None
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind, option]
    )


def _help(name: str, field: FieldInfo) -> str:
    if field.default in {None, ""} or isinstance(field.default, bool):
        return f"{field.description}"
    shown = human_size(field.default) if "_bytes" in name else field.default
    return f"{field.description} [dim]Default: {shown}[/dim]"


def _metavar(name: str, field: FieldInfo) -> str:
    choices = [arg for arg in get_args(field.annotation) if isinstance(arg, str)]
    if choices:
        return "|".join(choices)
    if name in {"grpc", "metrics", "http", "server"}:
        return "HOST:PORT"
    if "_bytes" in name:
        return "SIZE"
    return {"data": "DIR", "config": "FILE"}.get(name, "TEXT" if field.annotation is str else "N")
