"""`switchgear export incident` writes a day's incidents down, and names the ones there are for an id that is none."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

from dashboard import cli
from tests.dashboard.history import write_config, write_history

Output = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def config_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("day")
    path = write_config(folder)
    write_history(folder / "switchgear.db", int(time.time() * 1000), every_ms=30_000)
    return path


def export(path: Path, *arguments: str) -> int:
    return cli.run(["export", "incident", *arguments, "--config", str(path)])


def test_every_format_tells_of_the_same_incident(config_path: Path, capsys: Output, tmp_path: Path) -> None:
    assert export(config_path, "last", "--format", "json") == 0
    body = json.loads(capsys.readouterr().out)
    assert export(config_path, body["id"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("# Incident on chat, ")
    assert body["start"].replace("T", " ").rstrip("Z") in text
    assert export(config_path, body["id"], "--format", "html", "--output", str(tmp_path / "i.html")) == 0
    assert capsys.readouterr().out == ""
    assert (tmp_path / "i.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_an_id_that_is_none_is_answered_with_the_latest_ones(config_path: Path, capsys: Output) -> None:
    assert export(config_path, "nonsense") == 1
    said = capsys.readouterr().err
    assert re.match(r'switchgear: there is no incident "nonsense"; the latest: [0-9a-f-]{36} \(chat, 20', said)
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["last", "--format", "pdf"], "switchgear: Invalid value for '--format': 'pdf' is not one of 'md',"),
        (["last", "--output", "/nowhere/x.md"], "switchgear: --output: /nowhere/x.md cannot be written: No such file"),
        (["last", "--manager", "chut"], "managers.chut: there is no such manager"),
    ],
)
def test_a_wrong_use_is_one_line(config_path: Path, arguments: list[str], line: str, capsys: Output) -> None:
    assert export(config_path, *arguments) == 2
    said = capsys.readouterr().err
    assert line in said
    assert said.count("\n") == 1


def test_without_a_record_it_says_where_one_was_looked_for(tmp_path: Path, capsys: Output) -> None:
    assert export(write_config(tmp_path), "last") == 1
    assert capsys.readouterr().err.startswith(f"switchgear: there is no database at {tmp_path}/")
