"""A dashboard as its own process, and a Chromium that looks at it. Streamlit's test ids are in this module only."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, WebSocketRoute, expect, sync_playwright

from tests.patience import PATIENCE_S, eventually
from tests.programs import free_port

CHROMIUM = "/usr/bin/chromium"
DESKTOP = {"width": 1440, "height": 900}
PHONE = {"width": 390, "height": 844}
CONNECTED = "[data-testid=stApp][data-test-connection-state=CONNECTED]"
MAIN = "[data-testid=stMain]"
DIALOG = "[data-testid=stDialog]"
POPOVER = "[data-testid=stPopoverBody]"
MENU = "[data-testid=stSidebarNav]"
START_S = 60.0

expect.set_options(timeout=PATIENCE_S * 1000)  # for the whole process: Chromium pauses with its machine, too


def chromium() -> str | None:
    """Debian's Chromium, `None` where it is not installed."""
    return CHROMIUM if Path(CHROMIUM).exists() else shutil.which("chromium")


@contextmanager
def dashboard(config: Path, **environ: str) -> Iterator[str]:
    """A dashboard on a configuration; gives its address and stops it afterwards."""
    port = free_port()
    command = [sys.executable, "-m", "dashboard.serve", "--config", str(config), "--port", str(port)]
    process = subprocess.Popen(command, env=os.environ | environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        _await(address, process)
        yield address
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def _await(address: str, process: subprocess.Popen[bytes]) -> None:
    def is_up() -> bool:
        assert process.poll() is None, "the dashboard ended by itself"
        with urllib.request.urlopen(f"{address}/_stcore/health", timeout=5) as answer:
            return bool(answer.read() == b"ok")

    eventually(is_up, START_S, every=0.1, despite=(OSError,))


@contextmanager
def browser() -> Iterator[Browser]:
    """Chromium without a window."""
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(
            executable_path=chromium(),
            args=["--no-sandbox", "--headless=new", "--disable-gpu", "--disable-dev-shm-usage"],
        )
        try:
            yield opened
        finally:
            opened.close()


def visit(browser: Browser, *, dark: bool = False, phone: bool = False) -> Page:
    """A new visitor with their own cookies."""
    context = browser.new_context(
        viewport=PHONE if phone else DESKTOP,  # type: ignore[arg-type]
        color_scheme="dark" if dark else "light",
        timezone_id="Europe/Berlin",
        locale="en-GB",
    )
    page = context.new_page()
    page.set_default_timeout(PATIENCE_S * 1000)
    return page


def go(page: Page, address: str) -> None:
    """Open an address and wait until its page is there."""
    page.goto(address)
    page.wait_for_selector(CONNECTED)
    page.wait_for_selector(".sg-title, .sg-signin, .st-key-oidc, .sg-trouble")
    page.wait_for_timeout(300)


def until(page: Page, holds: Callable[[], bool]) -> None:
    """Wait until something holds that is learnt from the browser's own messages, which arrive only meanwhile."""
    eventually(lambda: page.wait_for_timeout(20) or holds())


def sideways(page: Page) -> int:
    """By how many pixels the page can be scrolled sideways."""
    found: Any = page.evaluate(
        f"(() => {{const e=document.querySelector('{MAIN}'); return e.scrollWidth-e.clientWidth}})()"
    )
    return int(found)


def sticking_out(page: Page) -> list[str]:
    """Texts that reach beyond their card, or over the figure beside them."""
    found: Any = page.evaluate(
        """(() => {
            const beyond = (part, whole) => part.right > whole.right + 1 && part.width > 0;
            const out = [];
            for (const card of document.querySelectorAll(".sg-card, .sg-headline, [class*='st-key-card-']")) {
                const whole = card.getBoundingClientRect();
                for (const part of card.querySelectorAll(".stHtml *, :scope > *"))
                    if (!part.closest(".sg-code, .sg-lane-marks") && beyond(part.getBoundingClientRect(), whole))
                        out.push(part.innerText || part.className);
            }
            for (const label of document.querySelectorAll(".sg-figure > *, .sg-big > *"))
                if (label.scrollWidth > label.parentElement.clientWidth + 1) out.push(label.innerText);
            return out;
        })()"""
    )
    return list(found)


def grow(page: Page) -> None:
    """Make the window as high as the page, for a picture of all of it."""
    height: Any = page.evaluate(f"document.querySelector('{MAIN}').scrollHeight")
    size = page.viewport_size or DESKTOP
    page.set_viewport_size({"width": size["width"], "height": max(int(height), size["height"])})
    page.wait_for_timeout(600)


class SlowLine:
    """A visitor's connection on which what the dashboard says can be held back, while what they do goes through."""

    def __init__(self, page: Page) -> None:
        self._held: list[str | bytes] | None = None
        self._page: WebSocketRoute | None = None
        page.route_web_socket("**/_stcore/stream", self._join)

    def _join(self, visitor: WebSocketRoute) -> None:
        self._page = visitor
        visitor.connect_to_server().on_message(self._tell)

    def _tell(self, message: str | bytes) -> None:
        if self._held is None:
            assert self._page is not None
            self._page.send(message)
        else:
            self._held.append(message)

    @contextmanager
    def held(self) -> Iterator[list[str | bytes]]:
        """Hold messages back; gives those held until now, which arrive in order afterwards."""
        self._held = held = []
        yield held
        self._held = None
        for message in held:
            self._tell(message)
