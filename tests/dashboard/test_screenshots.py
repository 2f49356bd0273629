"""The pictures in docs/: every page, light and dark, on a desk and on a phone. Run by `make screenshots`."""

from __future__ import annotations

import os
import time
from contextlib import closing
from pathlib import Path

import pytest
from browser import DIALOG, browser, chromium, dashboard, go, grow, visit
from history import Moment, heartbeat, write_config, write_history
from playwright.sync_api import Browser, Page, expect
from running import Place, serving

from engine.sqlite import sqlite3

PICTURES = Path(__file__).parents[2] / "docs" / "screenshots"
PAGES = {
    "now": "/",
    "incidents": "/incidents",
    "incident": "/incidents?at={now}",
    "requests": "/requests?span=6h",
    "request": "/requests?span=6h&request={hurt}",
    "alerts": "/alerts?rule=SecondaryActiveTooLong",
    "deliveries": "/deliveries",
    "control": "/control",
    "override": "/control",
}

pytestmark = [pytest.mark.screenshots, pytest.mark.timeout(600)]

if chromium() is None and os.environ.get("CI") != "true":
    pytest.skip("chromium is not installed", allow_module_level=True)


@pytest.mark.parametrize("phone", [False, True], ids=["1440x900", "390x844"])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_pictures_of_every_page(tmp_path: Path, dark: bool, phone: bool) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    now_ms = time.time_ns() // 1_000_000
    config, store = write_config(tmp_path), tmp_path / "switchgear.db"
    write_history(store, now_ms, Moment.DURING)
    with closing(sqlite3.connect(store)) as connection:
        query = (
            "SELECT id FROM requests WHERE failover_cause = 'server_error' AND attempts > 2 ORDER BY ts_ms DESC LIMIT 1"
        )
        (hurt,) = connection.execute(query).fetchone()
    with heartbeat(store), dashboard(config) as address, browser() as chrome:
        for name, path in PAGES.items():
            page = visit(chrome, dark=dark, phone=phone)
            go(page, address + path.format(now=now_ms, hurt=hurt))
            page.wait_for_timeout(1_500)
            if name == "override":
                page.get_by_role("button", name="Pin primary").click()
                page.locator(DIALOG).get_by_label("Reason").fill("The provider says it is over")
            elif name not in ("request", "requests"):
                grow(page)
            shoot(page, name, dark=dark, phone=phone)
        picture_of_the_playground(chrome, tmp_path, dark=dark, phone=phone)


def shoot(page: Page, name: str, *, dark: bool, phone: bool) -> None:
    """Write the picture, and let the page go."""
    page.wait_for_timeout(600)
    size = "390x844" if phone else "1440x900"
    page.screenshot(path=PICTURES / f"{name}-{'dark' if dark else 'light'}-{size}.png")
    page.context.close()


def picture_of_the_playground(chrome: Browser, tmp_path: Path, *, dark: bool, phone: bool) -> None:
    """Both models' answers, from a real gateway on simulated models."""
    folder = tmp_path / "playground"
    folder.mkdir()
    place = Place.make(folder)
    with serving(place), dashboard(place.path) as address:
        page = visit(chrome, dark=dark, phone=phone)
        go(page, f"{address}/playground?ask=both")
        page.get_by_label("Prompt").fill("Why is the sky blue? Answer in three sentences.")
        page.get_by_role("button", name="Send").click()
        expect(page.locator(".sg-answer-card", has_text="Answered")).to_have_count(2, timeout=30_000)
        page.mouse.move(0, 0)
        grow(page)
        shoot(page, "playground", dark=dark, phone=phone)
