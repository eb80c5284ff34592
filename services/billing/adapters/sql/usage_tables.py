"""The tables of the ledger's rollups. Conventions as in `tables`."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, Integer, Table, Text

from services.billing.adapters.sql.tables import METADATA
from services.billing.domain.rollups import HourKey, LabelKey, PeriodKey, Sums

_TYPES: Final = {
    "period_start_us": BigInteger,
    "hour_us": BigInteger,
    "credential_mode": Integer,
    "served_credential_mode": Integer,
}


def _columns(key: tuple[str, ...]) -> list[Column[object]]:
    """The columns of a key, then the sums."""
    keys = [Column(name, _TYPES.get(name, Text), primary_key=True, nullable=False, autoincrement=False) for name in key]
    return [*keys, *(Column(name, BigInteger, nullable=False) for name in Sums._fields)]  # type: ignore[list-item]


USAGE_PERIODS: Final = Table("usage_periods", METADATA, *_columns(PeriodKey._fields))
USAGE_HOURS: Final = Table("usage_hours", METADATA, *_columns(HourKey._fields))
USAGE_LABELS: Final = Table("usage_labels", METADATA, *_columns(LabelKey._fields))
