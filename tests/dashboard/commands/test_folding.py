"""A table breaks its sentences and leaves the names whole, as long as there is room for that."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.table import Table

from dashboard.commands.folding import Folding

NAME = "SecondaryActiveTooLong"
SENTENCE = "chat has run on its secondary for 2 min 13 s"


def shown(width: int) -> list[str]:
    table = Table(box=None, pad_edge=False)
    for title in ("state", "alertname", "severity", "summary"):
        table.add_column(title, overflow="fold")
    table.add_row("pending", NAME, "critical", SENTENCE)
    console = Console(file=io.StringIO(), width=width)
    console.print(Folding(table, {"summary"}))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_a_name_is_whole_where_only_sentences_need_to_break() -> None:
    lines = shown(60)
    assert any(NAME in line for line in lines)
    assert len(lines) > 2


@pytest.mark.parametrize("width", [20, 40, 60, 200])
def test_nothing_is_wider_than_the_terminal_and_nothing_is_cut(width: int) -> None:
    lines = shown(width)
    assert max(map(len, lines)) <= width
    said = "".join("".join(lines).split())
    assert "…" not in said
    assert sorted(said) == sorted(
        "statealertnameseveritysummarypending" + NAME + "critical" + SENTENCE.replace(" ", "")
    )
