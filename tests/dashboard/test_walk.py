"""The twenty questions of 3 a.m., walked from the first page in a browser: two clicks at most to every answer."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from browser import DIALOG, MAIN, MENU, POPOVER, browser, chromium, dashboard, go, visit
from history import Moment, heartbeat
from playwright.sync_api import Locator, Page, expect

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

if chromium() is None and os.environ.get("CI") != "true":
    pytest.skip("chromium is not installed", allow_module_level=True)

Click = Callable[[Page], Locator]
Said = str | re.Pattern[str]


def menu(name: str) -> Click:
    return lambda page: page.locator(MENU).get_by_role("link", name=name)


def button(name: str) -> Click:
    return lambda page: page.get_by_role("button", name=name).first


def css(selector: str, text: str = "") -> Click:
    return lambda page: page.locator(selector, has_text=text or None).first


LATEST = css(".sg-row", "Provider errors (5xx)")
STEPS: list[tuple[str, list[Click], list[Said]]] = [
    ("Are we serving users now?", [], ["Degraded", "100 % answered in 5 min"]),
    ("Which model is active, since when?", [], ["Serving from secondary (gemini-2.5-flash) for"]),
    ("Why did it switch?", [LATEST], ["What tripped it", "Threshold crossed", "9 of 14 calls failed"]),
    ("Did a human do it?", [menu("Control")], ["Automatic", "Audit log", "ana", "Checking answers of flash"]),
    (
        "Is the page still valid?",
        [],
        ["Active alerts", "SecondaryActiveTooLong", "Firing", re.compile(r"for \d+ min")],
    ),
    ("What exactly fails?", [LATEST, css(".sg-idlist a")], ["503", "The model is overloaded"]),
    ("Our key and quota, or the provider?", [], ["Wait for the provider", "Provider errors (5xx)", "429 share"]),
    ("Is primary recovering?", [], ["Breaker open", "next probe in", "Last probes", re.compile(r"\d of \d+ good")]),
    ("When do we fail back?", [], ["Back on primary when", "Hold", "Good probes", "0 of 5", "Ramp"]),
    ("Can secondary carry the load?", [], ["Secondary", "p95", "Error rate", "429 share", "/min"]),
    ("What if secondary dies too?", [], ["No spare: primary is not available"]),
    ("Are we flapping?", [], ["Last 24 hours", "Moves", "5 times", "Recent failovers"]),
    (
        "How bad for users, now against an hour ago?",
        [],
        [re.compile(r"1 h ago [\d.]+ s"), re.compile(r"1 h ago [\d.]+ %")],
    ),
    ("What changed just before?", [LATEST], ["Timeline", "Primary breaker open", "Active model moved from primary"]),
    ("Has it happened before, how did it end?", [LATEST], ["Similar before", "recovered by itself"]),
    (
        "Who was notified, did it arrive?",
        [menu("Deliveries"), css(".sg-rows tr", "Failed for good")],
        ["chat-room", "500"],
    ),
    (
        "Can I force a model safely?",
        [menu("Control"), button("Pin primary")],
        ["Primary breaker is open", "to confirm"],
    ),
    ("Which requests were hurt?", [LATEST, css("a", "Requests in it")], ["requests", "Provider errors (5xx)"]),
    ("Is this page telling the truth?", [], ["Last request", "Last evaluation", "Recorder", "Agreement", "Instances"]),
    ("What do I do and hand over?", [LATEST, button("Copy summary")], ["Wait for the provider", "# Incident"]),
]


@pytest.fixture(scope="module")
def page(stores: dict[Moment, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Page, str]]:
    folder = tmp_path_factory.mktemp("walk") / "store"
    shutil.copytree(stores[Moment.DURING].parent, folder)
    alive = heartbeat(folder / "switchgear.db")
    with alive, dashboard(folder / "switchgear.toml") as address, browser() as chrome:
        opened = visit(chrome)
        yield opened, address
        opened.context.close()


@pytest.mark.parametrize(("question", "clicks", "answer"), STEPS, ids=[question for question, _, _ in STEPS])
def test_the_answer_is_two_clicks_away(
    page: tuple[Page, str], question: str, clicks: list[Click], answer: list[Said]
) -> None:
    opened, address = page
    go(opened, address)
    assert len(clicks) <= 2
    for click in clicks:
        click(opened).click()
    for part in answer:
        seen = opened.locator(f"{MAIN}, {DIALOG}, {POPOVER}").get_by_text(part)
        expect(seen.filter(visible=True).first).to_be_visible()
