"""Money on the wire."""

from __future__ import annotations

from google.type import money_pb2

from services.shared.times import MICRO


def money_to_proto(micro: int) -> money_pb2.Money:
    """Micro-dollars to Money; units and nanos have the same sign, as Money demands."""
    units, rest = divmod(abs(micro), MICRO)
    sign = -1 if micro < 0 else 1
    return money_pb2.Money(currency_code="USD", units=sign * units, nanos=sign * rest * 1000)


def micro_from_money(money: money_pb2.Money) -> int:
    """Money in whole micro-dollars to micro-dollars; the contract has checked currency and range."""
    micro: int = money.units * MICRO + money.nanos // 1000
    return micro
