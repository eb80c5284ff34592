"""The rules that the contracts put on messages (buf.validate), as far as users' mistakes meet them.

Lengths, patterns, ranges, numbers of items and what has to be set are read from the messages' own descriptors, so that
they are the real services' rules. Those across fields are CEL expressions, which `_cross_rules` restates.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from flowstack_protos.buf.validate import validate_pb2
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from flowstack.testing._cross_rules import CROSS_RULES
from flowstack.testing._errors import Violation, invalid_request


def check(message: Message) -> None:
    """Checks a request.

    Raises:
        FakeError: INVALID_REQUEST, with every field that breaks a rule.
    """
    violations = list(_message(message, ""))
    if violations:
        raise invalid_request(*violations)


def _message(message: Any, path: str) -> Iterator[Violation]:
    descriptor = message.DESCRIPTOR
    for oneof in descriptor.oneofs:
        required = oneof.GetOptions().Extensions[validate_pb2.oneof].required
        if required and message.WhichOneof(oneof.name) is None:
            yield Violation(f"{path}{oneof.name}", "exactly one field is required in oneof")
    for field in descriptor.fields:
        yield from _field(message, field, f"{path}{field.name}")
    yield from _crossed(message, descriptor.GetOptions().Extensions[validate_pb2.message].cel, path.removesuffix("."))


def _crossed(value: Any, rules: Iterable[validate_pb2.Rule], path: str) -> Iterator[Violation]:
    for rule in rules:
        if not CROSS_RULES[rule.id](value):
            yield Violation(path, rule.message)


def _field(message: Any, field: FieldDescriptor, path: str) -> Iterator[Violation]:
    rules = field.GetOptions().Extensions[validate_pb2.field]
    value = getattr(message, field.name)
    if field.is_repeated:
        yield from _many(value, field, rules, path)
        yield from _crossed(value, rules.cel, path)
        return
    is_set = message.HasField(field.name) if field.has_presence else bool(value)
    if not is_set and (field.has_presence or rules.ignore == validate_pb2.IGNORE_IF_ZERO_VALUE):
        if rules.required:
            yield Violation(path, "value is required")
        return
    yield from _value(value, field, rules, path)


def _many(values: Any, field: FieldDescriptor, rules: validate_pb2.FieldRules, path: str) -> Iterator[Violation]:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        if rules.map.HasField("max_pairs") and len(values) > rules.map.max_pairs:
            yield Violation(path, f"map must be at most {rules.map.max_pairs} entries")
        parts = field.message_type.fields_by_name
        for key, value in values.items():
            yield from _value(key, parts["key"], rules.map.keys, path)
            yield from _value(value, parts["value"], rules.map.values, path)
        return
    limits = rules.repeated
    if len(values) < limits.min_items:
        yield Violation(path, f"must contain at least {limits.min_items} item(s)")
    if limits.HasField("max_items") and len(values) > limits.max_items:
        yield Violation(path, f"must contain no more than {limits.max_items} item(s)")
    if limits.unique and len(set(values)) < len(values):
        yield Violation(path, "repeated value must contain unique items")
    for index, value in enumerate(values):
        yield from _value(value, field, limits.items, f"{path}[{index}]")


def _value(value: Any, field: FieldDescriptor, rules: validate_pb2.FieldRules, path: str) -> Iterator[Violation]:
    if field.message_type is not None:
        if not field.message_type.full_name.startswith("google."):
            yield from _message(value, f"{path}.")
        elif field.message_type.full_name == "google.protobuf.Duration":
            yield from _duration(value.ToNanoseconds(), rules.duration, path)
        elif field.message_type.full_name == "google.protobuf.Timestamp":
            yield from _timestamp(value, rules.timestamp, path)
        yield from _crossed(value, rules.cel, path)
    elif field.type in _CHECKS:
        yield from _CHECKS[field.type](value, rules, path)
    elif field.enum_type is not None:
        if rules.enum.defined_only and value not in field.enum_type.values_by_number:
            yield Violation(path, "value must be one of the defined enum values")
        if value in rules.enum.not_in:
            yield Violation(path, f"value must not be in list {list(rules.enum.not_in)}")


def _string(value: str, rules: validate_pb2.StringRules, path: str) -> Iterator[Violation]:
    yield from _length(len(value.encode()), rules.min_bytes, rules.max_bytes, path)
    # The rules' `$` is the end alone, Python's is also the place before a last line break.
    if rules.HasField("pattern") and not re.search(re.sub(r"\$$", r"\\Z", rules.pattern), value, re.ASCII):
        yield Violation(path, f"value does not match regex pattern `{rules.pattern}`")
    if getattr(rules, "in") and value not in getattr(rules, "in"):
        yield Violation(path, "value must be in list " + str(list(getattr(rules, "in"))))
    if value in rules.not_in:
        yield Violation(path, "value must not be in list " + str(list(rules.not_in)))
    if rules.email and not re.fullmatch(r"[^@\s]+@[^@\s]+", value):
        yield Violation(path, "value must be a valid email address")


def _length(length: int, least: int, most: int, path: str) -> Iterator[Violation]:
    if length < least:
        yield Violation(path, f"value length must be at least {least} bytes")
    if most and length > most:
        yield Violation(path, f"value length must be at most {most} bytes")


def _duration(nanoseconds: int, rules: validate_pb2.DurationRules, path: str) -> Iterator[Violation]:
    if rules.HasField("gt") and nanoseconds <= rules.gt.ToNanoseconds():
        yield Violation(path, f"value must be greater than {rules.gt.seconds}s")
    if rules.HasField("gte") and nanoseconds < rules.gte.ToNanoseconds():
        yield Violation(path, f"value must be greater than or equal to {rules.gte.seconds}s")
    if rules.HasField("lte") and nanoseconds > rules.lte.ToNanoseconds():
        yield Violation(path, f"value must be less than or equal to {rules.lte.seconds}s")


def _timestamp(value: Timestamp, rules: validate_pb2.TimestampRules, path: str) -> Iterator[Violation]:
    if rules.HasField("gte") and (value.seconds, value.nanos) < (rules.gte.seconds, rules.gte.nanos):
        yield Violation(path, "value must be at or after 1970-01-01T00:00:00Z")
    if rules.HasField("lt") and (value.seconds, value.nanos) >= (rules.lt.seconds, rules.lt.nanos):
        yield Violation(path, "value must be before 2100-01-01T00:00:00Z")


def _number(value: float, rules: Any, path: str) -> Iterator[Violation]:
    if rules.HasField("gt") and value <= rules.gt:
        yield Violation(path, f"value must be greater than {rules.gt}")
    if rules.HasField("gte") and value < rules.gte:
        yield Violation(path, f"value must be greater than or equal to {rules.gte}")
    if rules.HasField("lte") and value > rules.lte:
        yield Violation(path, f"value must be less than or equal to {rules.lte}")


def _bool(value: bool, rules: validate_pb2.BoolRules, path: str) -> Iterator[Violation]:
    if rules.HasField("const") and value != rules.const:
        yield Violation(path, f"value must equal {str(rules.const).lower()}")


_CHECKS: dict[int, Callable[[Any, validate_pb2.FieldRules, str], Iterator[Violation]]] = {
    FieldDescriptor.TYPE_STRING: lambda value, rules, path: _string(value, rules.string, path),
    FieldDescriptor.TYPE_BYTES: lambda value, rules, path: _length(
        len(value), rules.bytes.min_len, rules.bytes.max_len, path
    ),
    FieldDescriptor.TYPE_BOOL: lambda value, rules, path: _bool(value, rules.bool, path),
    FieldDescriptor.TYPE_INT32: lambda value, rules, path: _number(value, rules.int32, path),
    FieldDescriptor.TYPE_INT64: lambda value, rules, path: _number(value, rules.int64, path),
    FieldDescriptor.TYPE_DOUBLE: lambda value, rules, path: _number(value, rules.double, path),
}
