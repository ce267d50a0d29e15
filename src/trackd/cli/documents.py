"""Messages of the contract as plain documents for `--json`: its field names, words without prefix.

By hand, because protobuf's own writer turns 64-bit numbers into texts and keeps the prefixes.
"""

import re
from functools import partial
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

_WORD_START = re.compile(r"(?<!^)(?=[A-Z])")


def document(message: Message, *, zeros: bool = False) -> dict[str, Any]:
    """Every field that is set; with `zeros` every field, as figures are read."""
    fields = message.DESCRIPTOR.fields if zeros else [field for field, _ in message.ListFields()]
    return {field.name: _value(field, getattr(message, field.name), zeros) for field in fields}


def _value(field: FieldDescriptor, value: Any, zeros: bool) -> Any:
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        return dict(value)
    one = partial(document, zeros=zeros) if kind is not None else _word(field)
    # A repeated field is a container of its own kind; texts and bytes can be iterated, too.
    if isinstance(value, Message | str | bytes | int | float):
        return one(value)
    return [one(part) for part in value]


def _word(field: FieldDescriptor) -> Any:
    enum = field.enum_type
    if enum is None:
        return lambda value: value
    prefix = _WORD_START.sub("_", enum.name).upper() + "_"

    def name(number: int) -> str | int:
        value = enum.values_by_number.get(number)
        return value.name.removeprefix(prefix) if value else number

    return name
