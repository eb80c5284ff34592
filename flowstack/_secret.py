"""Keeps keys out of what error reporters collect: they send the local variables of every frame."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Secret(Generic[T]):
    """A value that is not shown. True where it is there and not empty."""

    __slots__ = ("_value",)

    def __init__(self, value: T) -> None:
        self._value = value

    def reveal(self) -> T:
        """The value: for an argument, not for a variable of a frame that may raise."""
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __repr__(self) -> str:
        return "<secret>"


class Unshown(dict[str, Any]):
    """A dict that does not show what it holds, such as the variables of the environment."""

    def __repr__(self) -> str:
        return "<not shown>"
