"""What BlueFog keeps beside ifog's context: its integer handles and its switches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from ifog.context import Context, current
from ifog.errors import ArgumentError
from ifog.handle import Handle

__all__ = ["Numbered", "State", "require_resumed", "state"]


class Numbered:
    """Operations under way, by the numbers that stand for them."""

    def __init__(self) -> None:
        self._under_way: dict[int, Handle[Any]] = {}
        self._last = 0

    def __contains__(self, number: object) -> bool:
        return number in self._under_way

    def start(self, begin: Callable[[], Handle[Any]]) -> int:
        """Begin an operation; returns its number.

        Raises:
            ArgumentError: operations are suspended.
        """
        require_resumed()
        self._last += 1
        self._under_way[self._last] = begin()
        return self._last

    def done(self, number: int) -> bool:
        """Whether the operation has finished.

        Raises:
            ArgumentError: there is none of this number.
        """
        return self._find(number).done()

    def wait(self, number: int) -> Any:
        """The operation's result; afterwards the number means nothing.

        Raises:
            ArgumentError: there is none of this number.
        """
        handle = self._find(number)
        try:
            return handle.wait()
        finally:
            if handle.finished:  # an interrupted wait may be taken up again
                del self._under_way[number]

    def _find(self, number: int) -> Handle[Any]:
        if number not in self._under_way:
            raise ArgumentError(
                f"{number!r} is no handle of an operation under way: it was never given out, or "
                "has been waited for already"
            )
        return self._under_way[number]


class State:
    """The part of one rank."""

    def __init__(self) -> None:
        self.handles = Numbered()
        self.window_handles = Numbered()
        self.suspended = False
        self.skip_negotiate = False


_of_context: WeakKeyDictionary[Context, State] = WeakKeyDictionary()


def state() -> State:
    """The state that belongs to the current context.

    Raises:
        NotInitializedError: before ``init()``.
    """
    return _of_context.setdefault(current(), State())


def require_resumed() -> None:
    """Refuse to start an operation while operations are suspended.

    Raises:
        ArgumentError: ``suspend()`` was called and ``resume()`` was not.
        NotInitializedError: before ``init()``.
    """
    if state().suspended:
        raise ArgumentError("operations are suspended on this rank; call bf.resume() first")
