"""Every page runs on an empty store, on a day of history, in the middle of an incident and under an override."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from conftest import PAGES, words
from history import Moment
from streamlit.testing.v1 import AppTest

from dashboard import shared
from engine.config.config import PATH_VARIABLE
from engine.sqlite import sqlite3
from engine.store import BUSY_TIMEOUT_MS

Opened = Callable[..., AppTest]


@pytest.mark.parametrize("moment", list(Moment))
@pytest.mark.parametrize("page", PAGES)
def test_every_page_runs_at_every_moment(opened: Opened, stores: dict[Moment, Path], page: str, moment: Moment) -> None:
    at = opened(stores[moment], page)
    assert not at.exception
    assert len(words(at)) > 100


def test_the_first_page_says_who_serves_and_why_in_the_middle_of_an_outage(
    opened: Opened, stores: dict[Moment, Path]
) -> None:
    said = words(opened(stores[Moment.DURING]))
    assert "Serving from " in said
    assert "<strong>secondary</strong>" in said
    assert "gemini-2.5-flash" in said
    assert "Provider errors (5xx)" in said
    assert "Wait for the provider" in said
    assert "SecondaryActiveTooLong" in said


def test_an_alert_that_fires_while_all_is_well_calls_nobody(opened: Opened, stores: dict[Moment, Path]) -> None:
    said = words(opened(stores[Moment.CALM]))
    assert "No alert is pending or firing" in said
    assert "Watchdog" not in said
    assert "Watching" in words(opened(stores[Moment.CALM], "alerts"))


def test_an_alert_that_is_over_says_since_when_and_fills_no_bar(
    opened: Opened, stores: dict[Moment, Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(stores[Moment.CALM].parent, tmp_path / "resolved")
    with closing(sqlite3.connect(folder / "switchgear.db")) as connection, connection:
        since = time.time_ns() // 1_000_000 - 3 * 60_000
        connection.execute(
            "UPDATE alert_states SET state = 'resolved', since_ms = ? WHERE rule = 'RateLimited'", [since]
        )
    said = words(opened(folder / stores[Moment.CALM].name, "alerts"))
    assert "3 min ago" in said
    assert 'class="sg-progress"' not in said


def test_the_first_page_tells_how_to_begin_when_nothing_is_recorded(opened: Opened, stores: dict[Moment, Path]) -> None:
    said = words(opened(stores[Moment.EMPTY]))
    assert "No request has been recorded yet" in said
    assert "/v1/chat/completions" in said


@pytest.mark.parametrize("page", PAGES)
def test_an_override_is_told_on_every_page(opened: Opened, stores: dict[Moment, Path], page: str) -> None:
    said = words(opened(stores[Moment.PINNED], page))
    assert "Provider maintenance until 04:00" in said
    assert "ends in" in said


def test_an_incident_opens_by_its_moment_as_links_in_notifications_name_it(
    opened: Opened, stores: dict[Moment, Path]
) -> None:
    with sqlite3.connect(stores[Moment.DURING].parent / "switchgear.db") as connection:
        (moment,) = connection.execute("SELECT max(ts_ms) FROM failovers WHERE scope = 'active'").fetchone()
    said = words(opened(stores[Moment.DURING], "incidents", at=str(moment)))
    assert "What tripped it" in said
    assert "Failure rate" in said
    assert "Still" in said or "still going on" in said


def test_an_unknown_incident_is_a_sentence(opened: Opened, stores: dict[Moment, Path]) -> None:
    at = opened(stores[Moment.CALM], "incidents", incident="no-such-id")
    assert not at.exception
    assert "There is no such incident" in words(at)


def test_a_request_opens_by_its_id_with_its_attempts(opened: Opened, stores: dict[Moment, Path]) -> None:
    with sqlite3.connect(stores[Moment.CALM].parent / "switchgear.db") as connection:
        (found,) = connection.execute(
            "SELECT id FROM requests WHERE failover_cause = 'server_error' AND outcome = 'ok' LIMIT 1"
        ).fetchone()
    at = opened(stores[Moment.CALM], "requests", request=found)
    assert not at.exception
    assert "Secondary answered instead: provider errors (5xx)" in words(at)


def test_filters_come_from_the_address(opened: Opened, stores: dict[Moment, Path]) -> None:
    at = opened(stores[Moment.CALM], "requests", span="24h", outcome="shed")
    said = words(at)
    assert "Shed 429" in said
    assert "Answered 200" not in said


def test_the_audit_log_is_paged(opened: Opened, copied: Callable[[Moment], Path]) -> None:
    config = copied(Moment.CALM)
    with sqlite3.connect(config.parent / "switchgear.db") as connection:
        connection.executemany(
            "INSERT INTO overrides (id, ts_ms, manager, action, role, strict, reason, actor, expires_ms, epoch)"
            " VALUES (?, ?, 'chat', 'set', 'primary', 0, ?, 'ana', NULL, 1)",
            [(f"act-{n}", 1_795_000_000_000 + n, f"act number {n}") for n in range(30)],
        )
    first = opened(config, "control")
    said = words(first)
    assert "act number 29" in said
    assert "act number 5" not in said
    next(one for one in first.button if one.label == "Older").click()
    older = words(first.run())
    assert "act number 5" in older
    assert "act number 29" not in older


STRANGE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
ADDRESSES = [
    ("incidents", {"at": "²"}),
    ("incidents", {"at": "9" * 30}),
    ("incidents", {"incident": STRANGE}),
    ("incidents", {"before": "9" * 30}),
    ("requests", {"from": "9" * 30, "to": "2"}),
    ("requests", {"from": "1", "to": "9" * 30}),
    ("requests", {"from": "1", "to": "²"}),
    ("requests", {"before": "9" * 30 + "_x"}),
    ("requests", {"request": STRANGE}),
    ("requests", {"outcome": STRANGE, "cause": STRANGE, "role": STRANGE, "span": STRANGE, "slower": "1e999"}),
    ("alerts", {"rule": STRANGE}),
    ("alerts", {"silence": STRANGE}),
    ("deliveries", {"notification": STRANGE, "before": "²"}),
    ("deliveries", {"receiver": STRANGE, "state": STRANGE}),
    ("playground", {"ask": STRANGE}),
    ("now", {"manager": STRANGE, "live": STRANGE}),
]


@pytest.mark.parametrize(("page", "address"), ADDRESSES)
def test_no_address_breaks_a_page_or_brings_markup(
    opened: Opened, stores: dict[Moment, Path], page: str, address: dict[str, str]
) -> None:
    at = opened(stores[Moment.DURING], page, **address)
    assert not at.exception
    said = words(at)
    assert "<script>alert" not in said
    assert "<img src=x" not in said


def test_a_missing_database_is_a_sentence_with_a_remedy(opened: Opened, copied: Callable[[Moment], Path]) -> None:
    config = copied(Moment.EMPTY)
    (config.parent / "switchgear.db").unlink()
    at = opened(config)
    assert not at.exception
    assert "there is no database" in words(at).lower()


def test_an_older_schema_is_a_sentence_with_a_remedy(opened: Opened, copied: Callable[[Moment], Path]) -> None:
    config = copied(Moment.CALM)
    with sqlite3.connect(config.parent / "switchgear.db") as connection:
        connection.execute("PRAGMA user_version = 0")
    at = opened(config)
    assert not at.exception
    assert "start the gateway once" in words(at)


def test_a_damaged_database_is_a_sentence_with_a_remedy(opened: Opened, copied: Callable[[Moment], Path]) -> None:
    config = copied(Moment.CALM)
    store = config.parent / "switchgear.db"
    for suffix in ("-wal", "-shm"):
        store.with_name(store.name + suffix).unlink(missing_ok=True)
    store.write_bytes(b"this was a database once " * 1000)
    at = opened(config)
    assert not at.exception
    assert "is damaged" in words(at)
    assert "restore a copy" in words(at)


LOCK = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA locking_mode = EXCLUSIVE")
connection.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
time.sleep(120)
"""


def test_a_locked_database_is_a_sentence_with_a_remedy(opened: Opened, copied: Callable[[Moment], Path]) -> None:
    config = copied(Moment.CALM)
    store = str(config.parent / "switchgear.db")
    with subprocess.Popen([sys.executable, "-c", LOCK, store], stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"locked\n"
            at = opened(config)
        finally:
            holder.kill()
    assert not at.exception
    assert "is locked by another program" in words(at)
    assert "end its transaction" in words(at)


def test_a_page_waits_for_a_lock_less_long_than_a_writer_does(
    stores: dict[Moment, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PATH_VARIABLE, str(stores[Moment.CALM]))
    waits = shared.ask(lambda connection: connection.execute("PRAGMA busy_timeout").fetchone()[0])
    assert waits < BUSY_TIMEOUT_MS / 2  # every part of a page waits by itself, one after the other


def test_a_broken_configuration_is_a_sentence(opened: Opened, copied: Callable[[Moment], Path]) -> None:
    config = copied(Moment.EMPTY)
    config.write_text("[managers.chat]\nprimary = 3\n", encoding="utf-8")
    at = opened(config)
    assert not at.exception
    assert "switchgear.toml" in words(at)


def test_prompts_and_answers_cannot_bring_markup(opened: Opened, copied: Callable[[Moment], Path]) -> None:
    config = copied(Moment.CALM)
    with sqlite3.connect(config.parent / "switchgear.db") as connection:
        (found,) = connection.execute("SELECT id FROM requests ORDER BY ts_ms DESC LIMIT 1").fetchone()
        connection.execute("UPDATE attempts SET error = '<img src=x onerror=alert(1)>' WHERE request_id = ?", [found])
        connection.execute("UPDATE requests SET model = '<script>alert(1)</script>' WHERE id = ?", [found])
    said = words(opened(config, "requests", request=found))
    assert "<img src=x" not in said
    assert "<script>alert" not in said


def test_an_alert_that_may_fire_says_how_much_of_its_time_is_over(opened: Opened, stores: dict[Moment, Path]) -> None:
    said = words(opened(stores[Moment.PINNED]))
    for rule, progress in (("SecondaryActiveTooLong", r"1\d min of 15 min"), ("OverrideForgotten", r"1\d min of 4 h")):
        assert re.search(rf"Pending.*{rule}.*{progress}", said), rule


@pytest.mark.parametrize("page", ["now", "control"])
def test_a_reason_stands_by_itself_so_that_one_from_right_to_left_moves_nothing_else(
    opened: Opened, stores: dict[Moment, Path], page: str
) -> None:
    said = words(opened(stores[Moment.PINNED], page))
    assert said.count("“Provider maintenance") == len(re.findall(r"<bdi>“Provider maintenance[^<]*</bdi>", said)) > 1


def test_a_stretch_of_time_that_a_link_has_chosen_is_shown_and_can_be_left(
    opened: Opened, stores: dict[Moment, Path]
) -> None:
    at = opened(stores[Moment.CALM], "requests", **{"from": "1790000000000", "to": "1790003600000"})
    left = next(button for button in at.button if button.label == "21 Sep 14:13 – 21 Sep 15:13")
    left.click().run()
    assert at.segmented_control(key="named-span").value == "1h"
    assert "from" not in at.query_params


def test_lengths_of_time_are_written_alike(opened: Opened, stores: dict[Moment, Path]) -> None:
    said = words(opened(stores[Moment.CALM], "alerts", rule="SecondaryActiveTooLong"))
    assert ">15 min<" in said
    assert ">for 5 min<" in said
    spans = [opened(stores[Moment.CALM], page).segmented_control[0].options for page in ("requests", "incidents")]
    assert spans == [["15 min", "1 h", "6 h", "24 h", "7 days"], ["24 h", "7 days", "30 days"]]


@pytest.mark.parametrize("act", ["outcome", "span", "slower", "older"])
def test_a_choice_outlives_the_next_one_made_before_the_address_had_it(
    opened: Opened, stores: dict[Moment, Path], act: str
) -> None:
    at = opened(stores[Moment.DURING], "requests", span="24h")
    at.selectbox(key="named-role").set_value("primary").run()
    assert at.query_params["role"] == "primary"
    del at.query_params["role"]  # as from a browser that was quicker than our answer
    if act == "outcome":
        at.selectbox(key="named-outcome").set_value("ok").run()
    elif act == "span":
        at.segmented_control(key="named-span").set_value("7d").run()
    elif act == "slower":
        at.number_input(key="slower").set_value(0.001).run()
    else:
        next(button for button in at.button if button.label == "Older").click().run()
    assert not at.exception
    assert at.selectbox(key="named-role").value == "primary"
    assert at.query_params["role"] == "primary"


def test_an_address_without_a_choice_takes_it_back(opened: Opened, stores: dict[Moment, Path]) -> None:
    at = opened(stores[Moment.DURING], "requests", role="primary")
    assert at.selectbox(key="named-role").value == "primary"
    del at.query_params["role"]  # as the browser's way back does
    at.run()
    assert at.selectbox(key="named-role").value is None
