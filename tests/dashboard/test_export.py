"""An incident can be handed over: as Markdown, as a page that stands alone, and to a program."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from history import Moment

from dashboard import export
from dashboard.casefile import CaseFile, read_case, read_incidents, read_lines
from dashboard.timeline import sentence
from dashboard.times import Clockface
from engine.incidents import Ending
from engine.store import Store


@pytest.fixture
def face() -> Clockface:
    return Clockface(time.time_ns() // 1_000_000)


@pytest.fixture
def case(stores: dict[Moment, Path], face: Clockface) -> CaseFile:
    with Store(stores[Moment.CALM].parent / "switchgear.db").reader() as connection:
        oldest = read_incidents(connection, "chat", face.now_ms)[-1]
        found = read_case(connection, "chat", oldest.id, face.now_ms)
    assert found is not None
    return found


def test_a_day_has_its_incidents_with_what_callers_noticed(stores: dict[Moment, Path], face: Clockface) -> None:
    with Store(stores[Moment.CALM].parent / "switchgear.db").reader() as connection:
        lines = read_lines(connection, "chat", read_incidents(connection, "chat", face.now_ms), face.now_ms)
    assert [line.cause for line in lines] == ["rate_limited", "timeout", "timeout", "server_error"]
    assert all(line.incident.ending is not Ending.ONGOING for line in lines)
    assert lines[0].harm.hurt > 0
    assert lines[-1].harm.rescued > 0


def test_the_evidence_is_what_tripped_it(case: CaseFile) -> None:
    assert case.evidence is not None
    assert case.evidence.after == "open"
    assert case.evidence.evidence["failures"] == 9


def test_markdown_has_facts_evidence_and_timeline(case: CaseFile, face: Clockface) -> None:
    text = export.markdown(case, face)
    assert text.startswith("# Incident on chat, ")
    for part in (
        "| Who can fix it | Wait for the provider |",
        "## What tripped it",
        "## Timeline (UTC)",
        "Active model moved",
    ):
        assert part in text


@pytest.mark.parametrize("form", [export.markdown, export.html], ids=["markdown", "html"])
def test_evidence_is_written_for_people(
    case: CaseFile, face: Clockface, form: Callable[[CaseFile, Clockface], str]
) -> None:
    assert case.evidence is not None
    text = form(case, face)
    assert sentence(case.evidence) in text.replace("\\", "")
    assert "Wait before a probe" in text
    assert "['" not in text
    assert not re.search(r"\d\.\d{5}", text)
    for request in case.evidence.evidence["request_ids"]:
        assert text.count(request) == 1


def test_html_stands_alone_and_runs_nothing(case: CaseFile, face: Clockface) -> None:
    text = export.html(case, face)
    assert text.startswith("<!doctype html>")
    assert "<script" not in text
    assert "http" not in text


def test_json_is_for_programs(case: CaseFile, face: Clockface) -> None:
    found = json.loads(export.as_json(case, face))
    assert found["cause"] == "server_error"
    assert found["timeline"][0]["kind"] == "breaker"


def test_names_cannot_break_out_of_a_table() -> None:
    assert export._cell("a|b\n<img> [x](y)") == "a\\|b \\<img\\> \\[x\\](y)"
