"""A table in a terminal: what is copied from it stays whole where there is room, and nothing is ever cut."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table

GAP: Final = 2
ROOM: Final = 12
"""Characters that each column which may break needs, or all columns break."""


@dataclass(frozen=True)
class Folding:
    """A table whose named columns break before the others do.

    Attributes:
        table: The table; its columns fold.
        first: Headers of the columns that hold sentences.
    """

    table: Table
    first: Collection[str]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render it for the width there is."""
        whole = [column for column in self.table.columns if column.header not in self.first]
        needed = sum(max(cell_len(str(cell)) for cell in (column.header, *column.cells)) for column in whole)
        needed += GAP * (len(self.table.columns) - 1) + ROOM * (len(self.table.columns) - len(whole))
        for column in whole:
            column.no_wrap = needed <= options.max_width
        yield self.table
