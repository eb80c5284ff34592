"""The arithmetic behind the billing helpers. Pure; money is float dollars a month."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Literal

from flowstack._errors import InvalidRequestError

Complexity = Literal["simple", "medium", "complex"]

DAY_SECONDS: Final = 86_400.0
SESSIONS_MAX: Final = 2**53
COMPLEX_WORDS: Final = 300
SIMPLE_WORDS: Final = 30
_COMPLEX: Final = re.compile(
    r"\b(analy[sz]e|architect\w*|compare|debug|derive|design|evaluate|explain why|implement|investigate|optimi[sz]e|"
    r"plan|prove|refactor|reason|research|review|strategy|trade-?offs?)\b",
    re.IGNORECASE,
)
_STEPS: Final = re.compile(r"^\s*(?:[-*]|\d+[.)])\s|\b(?:then|after that|finally|step by step)\b|```", re.I | re.M)


def task_complexity(task: str) -> Complexity:
    """How demanding a task looks: a rule of thumb by its words, its length and its steps.

    complex: 300 words or more, two words of analysis or design, or one with three steps; simple: up to 30 words with
    neither such words nor steps; medium: everything between.
    """
    words, demands, steps = len(task.split()), len(_COMPLEX.findall(task)), len(_STEPS.findall(task))
    if words >= COMPLEX_WORDS or demands >= 2 or (demands and steps >= 3):
        return "complex"
    return "simple" if words <= SIMPLE_WORDS and not demands and not steps else "medium"


def expired(document: Mapping[str, Any], now: datetime) -> bool:
    """True when the document's `expires_at`, ISO text or datetime, has passed.

    One without a zone is local time, as `datetime.now()` writes it. A document without `expires_at` does not expire.

    Raises:
        ValueError: `expires_at` is no time.
    """
    moment = document.get("expires_at")
    if moment is None:
        return False
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment)
    if not isinstance(moment, datetime):
        raise ValueError("expires_at has to be a datetime or ISO 8601 text")
    return moment.astimezone(UTC) <= now


def split_batch(text: str, count: int) -> list[str]:
    """The parts of an answer to numbered requests: always `count` texts, empty where the answer has none.

    Numbers at the beginning of lines part it, `1.`, `2)`, `3:` or `### 4.`; where the lines do not have them, numbers
    between words do. A single request's answer needs no number.
    """
    for pattern in (r"^[ \t]*(?:#{1,6}[ \t]+)?(?:\*\*)?{n}[.):](?:\*\*)?(?=\s|$)", r"(?:^|(?<=\s)){n}[.):](?=\s)"):
        found = _split(text, count, pattern)
        if found:
            return found
    return [text.strip()] + [""] * (count - 1) if count > 0 else []


def _split(text: str, count: int, pattern: str) -> list[str]:
    marks: list[tuple[int, re.Match[str]]] = []
    position = 0
    for number in range(1, count + 1):
        match = re.compile(pattern.replace("{n}", str(number)), re.MULTILINE).search(text, position)
        if match:
            marks.append((number, match))
            position = match.end()
    if not marks:
        return []
    parts = [""] * count
    ends = [match.start() for _, match in marks[1:]] + [len(text)]
    for (number, match), end in zip(marks, ends, strict=True):
        parts[number - 1] = text[match.end() : end].strip()
    return parts


def project_sessions(
    history: Sequence[Mapping[str, Any]], used: int, start: datetime, end: datetime, now: datetime
) -> int:
    """Sessions at the period's end if they go on as they did.

    The pace is that between the oldest and the newest snapshot of this period; where these are not a day apart, which
    says little about a month, the period's own mean so far, and its first day counts as whole.

    Args:
        history: snapshots with `timestamp` (ISO text; without a zone, local) and `sessions_used`, in any order. One
            whose time cannot be read, or that is not of this period, says nothing.
        used: sessions counted so far.
        start: the period's start.
        end: the period's end.
        now: the present.

    Raises:
        InvalidRequestError: what is no list of snapshots.
    """
    points = sorted((moment, count) for moment, count in _points(history) if start <= moment < end)
    left_s = max(0.0, (end - now).total_seconds())
    span_s = (points[-1][0] - points[0][0]).total_seconds() if points else 0.0
    if span_s >= DAY_SECONDS and points[-1][1] >= points[0][1]:
        pace = (points[-1][1] - points[0][1]) / span_s
    else:
        pace = used / max((now - start).total_seconds(), DAY_SECONDS)
    return round(used + pace * left_s)


def _points(history: Any) -> Iterator[tuple[datetime, int]]:
    if not isinstance(history, Sequence) or isinstance(history, str):
        raise InvalidRequestError("history has to be a list of snapshots, such as vault.query() answers.")
    for number, one in enumerate(history):
        used = one.get("sessions_used") if isinstance(one, Mapping) else None
        if isinstance(used, bool) or not isinstance(used, int | float) or not 0 <= used < SESSIONS_MAX:
            raise InvalidRequestError(
                f"history[{number}] has to be a dict with a timestamp and a number of sessions_used; it is not."
            )
        try:
            yield datetime.fromisoformat(str(one["timestamp"])).astimezone(UTC), int(used)
        except (KeyError, ValueError, OverflowError):
            pass


def downgrade_saving(price: float, used: int, plans: Iterable[tuple[float, int]]) -> float:
    """What the cheapest plan that would have fitted saves; 0 where none is cheaper.

    Args:
        price: of the present plan.
        used: sessions that have to fit.
        plans: price and session limit of each plan on sale.
    """
    fitting = [other for other, limit in plans if limit >= used and other < price]
    return round(price - min(fitting), 2) if fitting else 0.0


def share(cost: float, sessions: int, of_sessions: int) -> float:
    """The cost of `sessions` out of `of_sessions` that cost `cost`."""
    return round(cost * sessions / of_sessions, 2) if of_sessions else 0.0
