"""The pictures in docs/: every page, light and dark, on a desk and on a phone. Run by `make screenshots`."""

from __future__ import annotations

import os
import time
from contextlib import closing
from pathlib import Path

import pytest
from browser import browser, chromium, dashboard, go, grow, visit
from history import Moment, heartbeat, write_config, write_history

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
    "playground": "/playground",
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
            if name not in ("request", "requests"):
                grow(page)
            size = "390x844" if phone else "1440x900"
            page.screenshot(path=PICTURES / f"{name}-{'dark' if dark else 'light'}-{size}.png")
            page.context.close()
