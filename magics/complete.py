"""Tab completion behind ``%bf`` and ``%%bf``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ifog.magics.commands import COMMANDS, PANELS
from ifog.magics.records import STATES

__all__ = ["complete_line", "matcher"]

_OPTIONS = {
    "stacks": ("--all",),
    "start": ("-n", "--hosts", "--network", "--sealed"),
    "pull": ("--ranks",),
    "push": ("--ranks",),
}
_CELL_OPTIONS = ("--ranks", "--timeout", "--stall", "--no-wait")


def complete_line(line: str, here: Iterable[str], ranks: Iterable[str]) -> list[str]:
    """What may follow in a line that begins with ``%bf`` or ``%%bf``, its last word half typed.

    Args:
        line: up to the cursor.
        here: the names of the notebook's variables.
        ranks: the names of the ranks' variables, as far as they are known.
    """
    words = line.split()
    if not line.endswith((" ", "\t")):
        words = words[:-1]
    if line.lstrip().startswith("%%"):
        return [option for option in _CELL_OPTIONS if option not in words]
    if len(words) < 2:
        return list(COMMANDS)
    command = words[1]
    options = [option for option in _OPTIONS.get(command, ()) if option not in words]
    if command == "topology" and len(words) == 2:
        from ifog import schedules

        return list(schedules.names())
    if command == "dashboard":
        return [panel for panel in PANELS if panel not in words]
    if command == "record" and len(words) == 2:
        return list(STATES)
    names = {"push": here, "pull": ranks}.get(command, ())
    return sorted(name for name in names if not name.startswith("_")) + options


def matcher(here: Callable[[], Iterable[str]], ranks: Callable[[], Iterable[str]]) -> Any:
    """A matcher for ``IPCompleter.custom_matchers`` that answers alone for our lines.

    Args:
        here: gives the names of the notebook's variables.
        ranks: gives those of the ranks.
    """
    from IPython.core.completer import SimpleCompletion, context_matcher

    @context_matcher(identifier="ifog.bf")  # type: ignore[untyped-decorator] # IPython's
    def match(context: Any) -> dict[str, Any]:
        line = context.text_until_cursor.lstrip()
        if not line.startswith(("%bf ", "%%bf ")):
            return {"completions": []}
        typed = "" if line.endswith((" ", "\t")) else line.split()[-1]
        skip = len(typed) - len(context.token) if typed.endswith(context.token) else 0
        words = complete_line(line, here(), ranks())
        found = [SimpleCompletion(word[skip:]) for word in words if word.startswith(typed)]
        return {"completions": found, "suppress": True}

    return match
