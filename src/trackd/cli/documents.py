"""Messages of the contract as plain documents for `--json`: its field names, words without prefix.

By hand, because protobuf's own writer turns 64-bit numbers into texts and keeps the prefixes.
"""

import re
from collections.abc import Callable
from functools import partial
from typing import Any

from google.protobuf.message import Message

_WORD_START = re.compile(r"(?<!^)(?=[A-Z])")


def document(message: Message, *, zeros: bool = False) -> dict[str, Any]:
    """Every field that is set; with `zeros` every field, as figures are read."""
    fields = message.DESCRIPTOR.fields if zeros else [field for field, _ in message.ListFields()]
    return {field.name: _value(field, getattr(message, field.name), zeros) for field in fields}


def _value(field: Any, value: Any, zeros: bool) -> Any:
    # The types of upb's descriptors and those of their stubs are not the same, hence Any.
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        return dict(value)
    one: Callable[[Any], Any] = _word(field.enum_type)
    if kind is not None:
        one = partial(document, zeros=zeros)
    # A repeated field is a container of its own kind; texts and bytes can be iterated, too.
    if isinstance(value, Message | str | bytes | int | float):
        return one(value)
    return [one(part) for part in value]


def _word(enum: Any) -> Callable[[Any], Any]:
    if enum is None:
        return lambda value: value
    prefix = _WORD_START.sub("_", enum.name).upper() + "_"

    def name(number: int) -> str | int:
        value = enum.values_by_number.get(number)
        return value.name.removeprefix(prefix) if value else number

    return name
