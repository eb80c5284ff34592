"""Makes messages of what a user gave. What does not fit is the user's to know, as a sentence that names it."""

from __future__ import annotations

from typing import Any, Final, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from flowstack._errors import InvalidRequestError

M = TypeVar("M", bound=Message)

_KINDS: Final = {
    FieldDescriptor.CPPTYPE_STRING: "text, without half a surrogate pair",
    FieldDescriptor.CPPTYPE_BOOL: "True or False",
    FieldDescriptor.CPPTYPE_DOUBLE: "a number",
    FieldDescriptor.CPPTYPE_FLOAT: "a number",
    FieldDescriptor.CPPTYPE_INT32: "a whole number of at most 32 bits",
    FieldDescriptor.CPPTYPE_INT64: "a whole number of at most 64 bits",
}


def build(kind: type[M], **fields: Any) -> M:
    """A message with these fields; None leaves one unset.

    Raises:
        InvalidRequestError: a value that its field cannot hold. The text names the field, never the value.
    """
    try:
        for name, value in fields.items():
            # A text would be taken for a list of its letters.
            if isinstance(value, str | bytes) and kind.DESCRIPTOR.fields_by_name[name].is_repeated:
                raise TypeError
        return kind(**fields)
    except (TypeError, ValueError, AttributeError):
        for name, value in fields.items():
            _check(kind, name, value)
        raise


def _check(kind: type[Message], name: str, value: Any) -> None:
    field = kind.DESCRIPTOR.fields_by_name[name]
    try:
        if field.is_repeated and isinstance(value, str | bytes):
            raise TypeError
        kind(**{name: value})
    except (TypeError, ValueError, AttributeError):
        raise InvalidRequestError(f"{name} has to be {_wanted(field)}; it is not.") from None


def _wanted(field: Any) -> str:
    message = field.message_type
    if message is not None and message.GetOptions().map_entry:
        return "a dict of text to text"
    one = _KINDS.get(field.cpp_type, "what its field takes")
    return f"a list, each of it {one}" if field.is_repeated else one
