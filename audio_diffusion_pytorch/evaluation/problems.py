"""Collect the problems of an evaluation; equal problems of several files share one line."""

from collections.abc import Iterable
from pathlib import Path

_SHOWN = 3  # names in a line
_HERE = "\x00"  # placeholder of the name in a line


class Problems:
    """Lines in the order of their addition, each once.

    Args:
        lines: lines to start with.
    """

    def __init__(self, lines: Iterable[str] = ()):
        self._names: dict[str, list[str]] = {}
        for line in lines:
            self.add(line)

    def add(self, line: str, *names: str | Path) -> None:
        """Add a line; lines that differ only by a name become one line with a count and names.

        Args:
            line: the problem.
            names: files or pairs of the problem; the first one that occurs in the line counts.
        """
        name = next((str(name) for name in names if str(name) in line), "")
        known = self._names.setdefault(line.replace(name, _HERE) if name else line, [])
        if name not in known:
            known.append(name)

    @property
    def lines(self) -> list[str]:
        """All lines."""
        return [_line(text, names) for text, names in self._names.items()]

    def short(self) -> str:
        """Return the first and last lines, joined to one."""
        lines = self.lines
        hidden = len(lines) - 6
        lines = [*lines[:3], f"... ({hidden} more)", *lines[-3:]] if hidden > 0 else lines
        return "; ".join(lines)


def _line(text: str, names: list[str]) -> str:
    if len(names) == 1:
        return text.replace(_HERE, names[0])
    text = text.removeprefix(f"{_HERE}: ").replace(_HERE, "NAME")
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{text} ({len(names)}: {', '.join(map(_short, names[:_SHOWN]))}{more})"


def _short(name: str) -> str:
    """Shorten an absolute path to its last two parts."""
    path = Path(name)
    return str(Path(*path.parts[-2:])) if path.is_absolute() else name
