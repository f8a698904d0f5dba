"""What BlueFog keeps beside ifog's context: its integer handles and its switches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from ifog.context import Context, current
from ifog.errors import ArgumentError
from ifog.handle import Handle

__all__ = ["Numbered", "State", "require_resumed", "state"]

_Key = tuple[int, int, str, str]


class Numbered:
    """Operations under way, by the numbers that stand for them."""

    def __init__(self) -> None:
        self._under_way: dict[int, Handle[Any]] = {}
        self._keys: dict[int, _Key] = {}
        self._taken: set[_Key] = set()
        self._last = 0

    def __contains__(self, number: object) -> bool:
        return number in self._under_way

    def start(self, begin: Callable[[], Handle[Any]], op: str = "", name: str | None = None) -> int:
        """Begin an operation; returns its number.

        Args:
            begin: starts it.
            op: its kind.
            name: no other of the kind may have this name in the cell until the caller knows that
                this one has finished, which, unlike its finishing, is one moment on every rank.

        Raises:
            ArgumentError: operations are suspended, or the name is taken.
        """
        require_resumed()
        context = current()
        key = (context.healed, context.cell, op, name or "")
        if name is not None and key in self._taken:
            raise ArgumentError(
                f"{op}: an operation named {name!r} is still in flight; wait for its handle first, "
                "or use another name"
            )
        handle = begin()
        self._last += 1
        self._under_way[self._last] = handle
        if name is not None:
            self._keys[self._last] = key
            self._taken.add(key)
        return self._last

    def done(self, number: int) -> bool:
        """Whether the operation has finished.

        Raises:
            ArgumentError: there is none of this number.
        """
        done = self._find(number).done()
        if done:
            self._release_name(number)
        return done

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
                self._release_name(number)

    def _release_name(self, number: int) -> None:
        key = self._keys.pop(number, None)
        if key is not None:
            self._taken.discard(key)

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
