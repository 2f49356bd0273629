"""What people do with the dashboard while a real gateway serves beside it and its models fail on command."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from browser import SlowLine, browser, chromium, dashboard, go, until, visit
from playwright.sync_api import Browser, Page, expect
from running import MODELS, Place, fetch, serving

from tests.patience import eventually
from tests.upstream import Fault, Upstream

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]

if chromium() is None and os.environ.get("CI") != "true":
    pytest.skip("chromium is not installed", allow_module_level=True)

PRO = "gemini-2.5-pro"
ARRIVES_MS = 40_000
"""Until an outage is on the page: the breaker's window, an agreement, and the snapshots that viewers share."""

PROVIDER = """
[providers.models]
kind = "openai"
base_url = "{url}"
api_key_env = "UPSTREAM_KEY"
"""
RETRY = """
[managers.chat.retry]
base_delay = "5ms"
max_delay = "10ms"
"""
BODY = PROVIDER + MODELS + RETRY


@pytest.fixture(scope="module")
def chrome() -> Iterator[Browser]:
    with browser() as opened:
        yield opened


@pytest.fixture
def page(chrome: Browser) -> Iterator[Page]:
    opened = visit(chrome)
    yield opened
    opened.context.close()


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as up:
        yield up


@pytest.fixture
def place(tmp_path: Path, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """A gateway that serves from the upstream."""
    monkeypatch.setenv("UPSTREAM_KEY", "any")
    found = Place.make(tmp_path, body=BODY.format(url=upstream.openai_url))
    with serving(found):
        yield found


NASTY = "<b>bold</b> <script>window.injected=true</script><img src=x onerror='window.injected=true'>"


def spoken(text: str) -> str:
    """A streamed answer of one piece, as an OpenAI endpoint sends it."""
    choices = ({"delta": {"role": "assistant", "content": text}}, {"delta": {}, "finish_reason": "stop"})
    chunks = [{"object": "chat.completion.chunk", "choices": [{"index": 0, **one}]} for one in choices]
    return "".join(f"data: {json.dumps(one)}\n\n" for one in chunks) + "data: [DONE]\n\n"


def say(place: Place) -> int:
    body = {"model": "chat", "messages": [{"role": "user", "content": "hello"}]}
    return fetch(f"{place.url}/v1/chat/completions", body)[0]


@contextmanager
def traffic(place: Place) -> Iterator[list[int]]:
    """Callers who ask five times a second; the statuses they got."""
    stopped, statuses = threading.Event(), []

    def ask() -> None:
        while not stopped.wait(0.2):
            statuses.append(say(place))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield statuses
    finally:
        stopped.set()
        thread.join(30)


def test_an_incident_arrives_on_the_open_page_and_goes_again(page: Page, place: Place, upstream: Upstream) -> None:
    with dashboard(place.path) as address, traffic(place) as statuses:
        eventually(lambda: len(statuses) >= 10)
        go(page, address)
        headline, primary = page.locator(".sg-headline"), page.locator(".sg-model-primary")
        expect(headline.locator("h1")).to_contain_text("Serving from primary")
        expect(page.locator(".sg-card", has_text="Active alerts")).to_contain_text("No alert is pending or firing")
        page.evaluate("window.kept = true")

        upstream.set(PRO, Fault(error="unavailable"))
        expect(headline.locator("h1")).to_contain_text("Serving from secondary", timeout=ARRIVES_MS)
        expect(headline).to_contain_text("Provider errors (5xx)")
        expect(primary).to_contain_text("Breaker open")
        expect(primary).to_contain_text("Standby")
        expect(page.locator(".sg-model-secondary")).to_contain_text("Active")
        expect(page.locator(".sg-mark-secondary")).to_be_attached(timeout=ARRIVES_MS)
        expect(page.locator(".sg-lane", has_text="Active model").locator(".sg-seg-secondary")).to_be_attached()
        expect(page.locator(".sg-row", has_text="SecondaryActiveTooLong")).to_contain_text(
            "Pending", timeout=ARRIVES_MS
        )
        assert page.evaluate("window.kept") is True, "the page was not loaded again"
        assert set(statuses) == {200}, "no caller was hurt"

        page.locator(".sg-row", has_text="Provider errors (5xx)").first.click()
        expect(page.get_by_text("What tripped it")).to_be_visible()
        expect(page.locator(".sg-headline")).to_contain_text("Ongoing")

        upstream.set(PRO, Fault())
        expect(page.get_by_text("the probe succeeded")).to_be_visible(timeout=ARRIVES_MS)
        assert page.evaluate("window.kept") is True, "its own page was not loaded again either"


def test_a_pin_on_the_dashboard_is_obeyed_by_the_gateway(page: Page, place: Place, upstream: Upstream) -> None:
    say(place)
    with dashboard(place.path) as address:
        go(page, f"{address}/control")
        page.get_by_role("button", name="Pin secondary").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("Reason").fill("Provider maintenance tonight")
        dialog.get_by_role("button", name="Pin secondary").click()
        expect(page.locator(".sg-banner")).to_contain_text("Provider maintenance tonight")
        upstream.forget()

        def is_obeyed() -> bool:
            upstream.forget()
            say(place)
            return bool(upstream.seen() and not upstream.seen(PRO))

        eventually(is_obeyed)
        page.get_by_role("button", name="Return to automatic").click()
        dialog.get_by_label("Reason").fill("Maintenance is over now")
        dialog.get_by_role("button", name="Return to automatic").click()
        expect(page.locator(".sg-banner")).not_to_be_attached()


def test_one_prompt_goes_to_both_models_side_by_side(page: Page, place: Place, upstream: Upstream) -> None:
    upstream.set(PRO, Fault(body=spoken(NASTY), content_type="text/event-stream"))
    with dashboard(place.path) as address:
        go(page, f"{address}/playground")
        page.get_by_text("Both models, side by side").click()
        expect(page.locator(".st-key-card-ask .sg-note")).to_contain_text("Each model is asked alone")
        page.get_by_label("Prompt").fill(NASTY)
        page.get_by_role("button", name="Send").click()
        cards = page.locator(".sg-answer-card")
        expect(cards).to_have_count(2)
        for card, role, model in zip(cards.all(), ("Primary", "Secondary"), (PRO, "gemini-2.5-flash"), strict=True):
            expect(card).to_contain_text(role)
            expect(card).to_contain_text(model)
            expect(card.locator(".sg-badge")).to_have_text("check_circleAnswered")
            for fact in ("First token", "Took", "Tokens", "Cost"):
                expect(card.locator("dt", has_text=fact)).to_be_visible()
        expect(cards.first.locator(".sg-answer")).to_have_text(NASTY)
        assert page.evaluate("window.injected") is None
        assert "ask=both" in page.url
        upstream.set(PRO, Fault(error="unavailable"))
        page.get_by_role("button", name="Send").click()
        expect(cards.first).to_contain_text("No answer")
        expect(cards.first).to_contain_text("The model that was asked for could not answer")
        expect(cards.last).to_contain_text("Answered")
        cards.first.get_by_text("Its attempts").click()
        expect(page.locator(".sg-drawer")).to_contain_text("a test")


def test_a_prompt_goes_where_the_control_says_however_late_the_address_follows(
    page: Page, place: Place, upstream: Upstream
) -> None:
    upstream.set(PRO, Fault(body=spoken("here"), content_type="text/event-stream"))
    line = SlowLine(page)
    with dashboard(place.path) as address:
        go(page, f"{address}/playground")
        page.get_by_label("Prompt").fill("Hello")
        with line.held() as held:
            page.get_by_text("Both models, side by side").click()
            until(page, lambda: any(b"ask=both" in bytes(message) for message in held))
            assert "ask=both" not in page.url, "the browser does not know yet"
            page.get_by_role("button", name="Send").click()
            page.wait_for_timeout(500)
        expect(page.locator(".sg-answer-card")).to_have_count(2)
        expect(page.locator(".st-key-card-ask .sg-note")).to_contain_text("Each model is asked alone")
        expect(page.get_by_role("radio", name="Both models, side by side")).to_be_checked()
        assert "ask=both" in page.url
