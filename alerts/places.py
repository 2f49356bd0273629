"""Where things stand in a TOML file: tomllib tells values, this tells the lines they are on."""

from __future__ import annotations

import re
from pathlib import Path

_HEADER = re.compile(r"^\s*\[\[?\s*([\w.\"-]+)\s*\]\]?")


class Places:
    """The lines of arrays of tables and of the keys in them.

    Args:
        text: The file's text.
    """

    def __init__(self, text: str) -> None:
        self._lines: dict[tuple[str, int], int] = {}
        self._keys: dict[tuple[str, int, str], int] = {}
        counts: dict[str, int] = {}
        current = ("", 0)
        for number, line in enumerate(text.splitlines(), start=1):
            if header := _HEADER.match(line):
                name = header.group(1)
                current = (name, counts.get(name, 0))
                counts[name] = current[1] + 1
                self._lines[current] = number
            elif key := re.match(r"^\s*\"?([\w-]+)\"?\s*=", line):
                self._keys.setdefault((*current, key.group(1)), number)

    def line(self, table: str, index: int, key: str = "") -> int:
        """The line of a key, else of its table, else the first.

        Args:
            table: Name of an array of tables, such as `rules`.
            index: Which of them, from 0.
            key: A key in it.
        """
        return self._keys.get((table, index, key)) or self._lines.get((table, index), 1)


def toml_error_line(message: str) -> int:
    """The line that an error of tomllib names."""
    found = re.search(r"at line (\d+)", message)
    return int(found.group(1)) if found else 1


def shown(path: Path) -> str:
    """A path as short as it can be written from here."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
