"""Sums of the ledger that are kept with it: by period, by hour, and by hour and label.

A session is in the hour, and in the period, in which it was reserved. Hours are UTC's; where a period turns within one,
its sessions stand in two rows. So days, months and periods are whole sums of rows.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple, TypeVar

from services.billing.domain.ledger import CredentialMode, EventType, LedgerEntry

HOUR_US: Final = 3_600 * 1_000_000
NO_LABELS: Final = "{}"
_COUNTED: Final[dict[int, tuple[int, int, int]]] = {
    EventType.COMMITTED: (1, 0, 0),
    EventType.RELEASED: (0, 1, 0),
    EventType.EXPIRED: (0, 0, 1),
}
KeyT = TypeVar("KeyT", bound=Hashable)


def hour_of(time_us: int) -> int:
    """The start of the hour that a time is in; the hours of a period begin with the one that it begins in."""
    return time_us - time_us % HOUR_US


class Sums(NamedTuple):
    """What sessions add up to."""

    committed: int = 0
    released: int = 0
    expired: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    without_tokens: int = 0
    """Sessions whose input or output tokens are unknown; none of theirs is in the sums."""
    cost_micro: int = 0
    unpriced: int = 0
    """BYOK sessions whose provider cost is unknown and not in `cost_micro`."""

    def plus(self, other: Sums) -> Sums:
        """Both together."""
        return Sums(*map(int.__add__, self, other))


class PeriodKey(NamedTuple):
    """An account's period, by whose credentials its sessions count as."""

    account_id: str
    period_start_us: int
    credential_mode: int


class HourKey(NamedTuple):
    """An account's hour, by period, by what served the sessions, and by what they count as."""

    account_id: str
    hour_us: int
    period_start_us: int
    provider: str
    model: str
    served_credential_mode: int
    credential_mode: int


class LabelKey(NamedTuple):
    """The same by one label. A session is in as many of these sums as it has labels."""

    account_id: str
    label_key: str
    hour_us: int
    label_value: str
    period_start_us: int
    provider: str
    model: str
    served_credential_mode: int
    credential_mode: int


class Rollup(NamedTuple):
    """What entries add to the sums."""

    periods: Mapping[PeriodKey, Sums]
    hours: Mapping[HourKey, Sums]
    labels: Mapping[LabelKey, Sums]


def rolled_up(entries: Iterable[LedgerEntry]) -> Rollup:
    """What entries add to the sums. The finest is made of the entries, each coarser one of the finer."""
    # In two steps, because a batch has few keys: adding up whole columns at once is several times as fast.
    groups: dict[tuple[str, int, int, str, str, int, int, str], list[Sums]] = {}
    for entry in entries:
        key = (
            entry.account_id,
            hour_of(entry.reserve_us),
            entry.period_start_us,
            entry.served_provider,
            entry.served_model,
            entry.served_credential_mode,
            entry.credential_mode,
            entry.labels,
        )
        groups.setdefault(key, []).append(sums_of(entry))
    hours: dict[HourKey, Sums] = {}
    labels: dict[LabelKey, Sums] = {}
    read: dict[str, Collection[tuple[str, str]]] = {NO_LABELS: ()}
    for (*of_hour, text), several in groups.items():
        hour, sums = HourKey._make(of_hour), added(several)
        _add(hours, hour, sums)
        if text not in read:
            read[text] = _labels(text)
        for label_key, label_value in read[text]:
            _add(labels, LabelKey(hour.account_id, label_key, hour.hour_us, label_value, *hour[2:]), sums)
    periods: dict[PeriodKey, Sums] = {}
    for hour, sums in hours.items():
        _add(periods, PeriodKey(hour.account_id, hour.period_start_us, hour.credential_mode), sums)
    return Rollup(periods, hours, labels)


def label_text(text: str) -> str:
    """A label's key or value as sums keep it: without U+0000, which is no text to PostgreSQL."""
    return text.replace("\0", "\ufffd")


def _labels(text: str) -> Collection[tuple[str, str]]:
    return {label_text(key): label_text(value) for key, value in json.loads(text).items()}.items()


def added(several: Sequence[Sums]) -> Sums:
    """All of them together."""
    return several[0] if len(several) == 1 else Sums(*map(sum, zip(*several, strict=True)))


def sums_of(entry: LedgerEntry) -> Sums:
    """One entry's sums."""
    event, cost = entry.event, entry.provider_cost_micro
    unpriced = 1 if cost is None and entry.credential_mode == CredentialMode.BYOK else 0
    committed, released, expired = _COUNTED.get(event, (0, 0, 0))
    if entry.input_tokens is None or entry.output_tokens is None:
        return Sums(committed, released, expired, 0, 0, 0, 0, 0, 1, cost or 0, unpriced)
    return Sums(
        committed,
        released,
        expired,
        entry.input_tokens,
        entry.output_tokens,
        entry.cached_input_tokens or 0,
        entry.cache_write_tokens or 0,
        entry.reasoning_tokens or 0,
        0,
        cost or 0,
        unpriced,
    )


def _add(found: dict[KeyT, Sums], key: KeyT, sums: Sums) -> None:
    before = found.get(key)
    found[key] = sums if before is None else before.plus(sums)
