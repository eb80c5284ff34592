"""Single values: as a person reads and writes them, and as the contracts hold them."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from google.type.money_pb2 import Money

from flowstack._errors import ConfigurationError

MICRO: Final = Decimal(1_000_000)
DOLLARS_MAX: Final = 1_000_000_000
"""The most that the contracts take as an amount."""
INT32_MAX: Final = 2**31 - 1


def dollars(money: Money) -> str:
    """`$1,234.50`, with as many places as the amount has, and two at least."""
    amount = Decimal(money.units) + Decimal(money.nanos) / 1_000_000_000
    text = f"{abs(amount):,.6f}"
    whole, _, places = text.partition(".")
    places = places.rstrip("0").ljust(2, "0")
    return f"{'-' if amount < 0 else ''}${whole}.{places}"


def optional_dollars(message: Any, field: str, unknown: str = "unknown") -> str:
    """The money in a field that may be unset."""
    return dollars(getattr(message, field)) if message.HasField(field) else unknown


def money_from(text: str) -> Money:
    """Dollars as a person writes them, `15`, `$15.50` or `1,000`.

    Raises:
        ConfigurationError: it is no amount, finer than a millionth of a dollar, or beyond 1,000,000,000 dollars.
    """
    try:
        amount = Decimal(text.strip().removeprefix("$").replace(",", ""))
    except InvalidOperation:
        amount = Decimal("NaN")
    if not amount.is_finite():
        raise ConfigurationError(f"{text!r} is no amount in dollars. Write it like 15 or 15.50.")
    if abs(amount) > DOLLARS_MAX:
        raise ConfigurationError(f"{text!r} is more than {DOLLARS_MAX:,} dollars, the most that there can be.")
    micro = amount * MICRO
    if micro != micro.to_integral_value():
        raise ConfigurationError(f"{text!r} is finer than a millionth of a dollar. Write it like 15 or 15.50.")
    units, rest = divmod(abs(int(micro)), 1_000_000)
    sign = -1 if micro < 0 else 1
    return Money(currency_code="USD", units=sign * units, nanos=sign * rest * 1000)


def time_of(message: Any, field: str) -> str:
    """The time in a field, in UTC; empty where unset."""
    if not message.HasField(field):
        return ""
    return when(getattr(message, field))


def when(time: Timestamp) -> str:
    """`2026-03-10 12:00 UTC`."""
    return f"{time.ToDatetime(tzinfo=UTC):%Y-%m-%d %H:%M} UTC"


def date_of(time: Timestamp) -> str:
    """`2026-03-10`."""
    return f"{time.ToDatetime(tzinfo=UTC):%Y-%m-%d}"


def time_from(text: str) -> Timestamp:
    """A date or time in ISO 8601; without a zone it is UTC.

    Raises:
        ConfigurationError: it is none.
    """
    try:
        time = datetime.fromisoformat(text)
        time = time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise ConfigurationError(f"{text!r} is no time. Write it like 2026-03-10 or 2026-03-10T12:00:00Z.") from None
    made = Timestamp()
    made.FromDatetime(time)
    return made


def hours(number: float) -> Duration:
    """So many hours, to the second."""
    return Duration(seconds=round(number * 3600))


def word(message: Any, field: str) -> str:
    """An enum's value in a person's words: ALERT_SEVERITY_WARNING is `warning`; empty where unspecified."""
    descriptor = message.DESCRIPTOR.fields_by_name[field]
    names = descriptor.enum_type.values_by_number
    number = getattr(message, field)
    if not number:
        return ""
    if number not in names:
        return str(number)
    prefix = names[0].name.removesuffix("UNSPECIFIED")
    return str(names[number].name.removeprefix(prefix).replace("_", " ").lower())


def words_of(message: Any, field: str) -> list[str]:
    """The values of a repeated enum, likewise."""
    descriptor = message.DESCRIPTOR.fields_by_name[field]
    names = descriptor.enum_type.values_by_number
    prefix = names[0].name.removesuffix("UNSPECIFIED")
    return [names[number].name.removeprefix(prefix).replace("_", " ").lower() for number in getattr(message, field)]


def limit_of(number: int) -> str:
    """A number of sessions with thousands apart."""
    return f"{number:,}"
