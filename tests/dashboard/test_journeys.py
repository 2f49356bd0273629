"""What people do with the dashboard, done in a real browser."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from browser import DIALOG, POPOVER, SlowLine, browser, chromium, dashboard, go, sideways, sticking_out, until, visit
from history import Moment
from playwright.sync_api import Browser, Page, expect

from engine.sqlite import sqlite3

AXE = Path(__file__).parent / "vendor" / "axe.min.js"
ALL_PAGES = ("/", "/incidents", "/requests?span=24h", "/alerts", "/deliveries", "/control", "/playground")

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]

if chromium() is None and os.environ.get("CI") != "true":
    pytest.skip("chromium is not installed", allow_module_level=True)


@pytest.fixture(scope="module")
def chrome() -> Iterator[Browser]:
    with browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def outage(stores: dict[Moment, Path]) -> Iterator[str]:
    with dashboard(stores[Moment.DURING]) as address:
        yield address


@pytest.fixture
def page(chrome: Browser) -> Iterator[Page]:
    opened = visit(chrome)
    yield opened
    opened.context.close()


def test_from_the_headline_to_the_evidence_to_a_hurt_request(page: Page, outage: str) -> None:
    go(page, outage)
    expect(page.locator(".sg-headline h1")).to_contain_text("Serving from secondary")
    page.locator(".sg-row", has_text="Provider errors").first.click()
    expect(page.get_by_text("What tripped it")).to_be_visible()
    expect(page.locator(".sg-timeline")).to_contain_text("Primary breaker open")
    page.locator(".sg-idlist a").first.click()
    expect(page.locator(".sg-drawer .sg-wf")).to_be_visible()
    expect(page.locator(".sg-story")).to_contain_text("provider errors")
    assert "request=" in page.url


def test_links_change_pages_without_loading_the_app_again(page: Page, outage: str) -> None:
    go(page, outage)
    page.evaluate("window.kept = true")
    page.locator(".sg-more", has_text="Alerts").click()
    expect(page.locator(".sg-title h1")).to_have_text("Alerts")
    assert page.evaluate("window.kept") is True
    page.go_back()
    expect(page.locator(".sg-title h1")).to_have_text("Now")


def test_the_first_page_stays_alive_and_can_be_paused(page: Page, outage: str) -> None:
    go(page, outage)
    chip = page.locator(".sg-chip", has_text="Last request").locator(".sg-chip-value")
    seen = {chip.inner_text()}
    for _ in range(3):
        expect(chip).not_to_have_text(chip.inner_text())
        seen.add(chip.inner_text())
    assert len(seen) > 1
    page.locator(".st-key-live").get_by_text("Live").click()
    page.wait_for_timeout(2_500)
    still = chip.inner_text()
    page.wait_for_timeout(4_500)
    assert chip.inner_text() == still
    assert "live=" in page.url


def test_a_refresh_takes_neither_focus_nor_selection_away(page: Page, outage: str) -> None:
    go(page, outage)
    chip = page.locator(".sg-chip", has_text="Last request").locator(".sg-chip-value")
    link = page.locator(".sg-more", has_text="Alerts")
    link.focus()
    page.evaluate("getSelection().selectAllChildren(document.querySelector('.sg-legend'))")
    selected = page.evaluate("getSelection().toString()")
    assert "Secondary" in selected
    for _ in range(2):
        expect(chip).not_to_have_text(chip.inner_text())
        expect(link).to_be_focused()
        assert page.evaluate("getSelection().toString()") == selected
    page.locator(".sg-title h1").click()
    expect(chip).not_to_have_text(chip.inner_text())
    expect(link).not_to_be_focused()
    assert page.evaluate("getSelection().toString()") == ""


def test_a_view_is_in_its_address_and_comes_back_with_it(page: Page, outage: str) -> None:
    go(page, f"{outage}/requests?span=24h&outcome=shed")
    outcome = page.get_by_role("combobox", name="Outcome")
    expect(outcome).to_have_value("Shed")
    outcome.click()
    page.get_by_role("option", name="Answered").click()
    expect(page.locator(".sg-rows tbody tr").first).to_contain_text("Answered")
    page.get_by_role("button", name="Older").click()
    page.wait_for_url("**before=*")
    page.reload()
    expect(outcome).to_have_value("Answered")
    expect(page.get_by_role("button", name="Newest")).to_be_visible()
    page.go_back()
    page.go_back()
    expect(outcome).to_have_value("Shed")
    assert "outcome=shed" in page.url


def test_an_operator_pins_a_model_and_everybody_sees_who_and_why(
    chrome: Browser, page: Page, copied: Callable[[Moment], Path]
) -> None:
    config = copied(Moment.CALM)
    with dashboard(config) as address:
        go(page, f"{address}/control")
        page.get_by_role("button", name="Pin secondary").click()
        dialog = page.locator(DIALOG)
        expect(dialog).to_contain_text("All traffic moves to gemini-2.5-flash at once.")
        expect(dialog.locator(".sg-figure")).to_have_count(3)
        expect(dialog.locator("a")).to_have_count(0)  # which would lead away from a half-written reason
        dialog.get_by_role("button", name="Pin secondary").click()
        expect(dialog).to_contain_text("Say why")
        dialog.get_by_label("Reason").fill("Provider maintenance tonight")
        dialog.get_by_role("button", name="Pin secondary").click()
        expect(page.locator(".sg-banner")).to_contain_text("Provider maintenance tonight")
        expect(page.locator(".sg-table", has_text="Provider maintenance tonight")).to_be_visible()
        other = visit(chrome)
        go(other, address)
        expect(other.locator(".sg-banner")).to_contain_text("by local")
        other.context.close()
    with sqlite3.connect(config.parent / "switchgear.db") as connection:
        acts = connection.execute("SELECT action, role, actor FROM overrides ORDER BY seq DESC LIMIT 1").fetchone()
        document = connection.execute("SELECT document FROM fleet_state").fetchone()[0]
    assert acts == ("set", "secondary", "local")
    assert '"active":"secondary"' in document


def test_an_override_is_what_its_form_shows_however_late_the_page_follows(
    page: Page, copied: Callable[[Moment], Path]
) -> None:
    config = copied(Moment.CALM)
    line = SlowLine(page)
    with dashboard(config) as address:
        go(page, f"{address}/control")
        page.get_by_role("button", name="Pin secondary").click()
        dialog = page.locator(DIALOG)
        dialog.get_by_label("Reason").fill("Provider maintenance tonight")
        with line.held() as held:
            dialog.get_by_text("15 minutes").click()
            until(page, lambda: len(held) > 0)
            dialog.get_by_role("button", name="Pin secondary").click()
            page.wait_for_timeout(500)
        expect(page.locator(".sg-banner")).to_contain_text("Provider maintenance tonight")
    with sqlite3.connect(config.parent / "switchgear.db") as connection:
        acts = connection.execute("SELECT role, expires_ms - ts_ms FROM overrides ORDER BY seq DESC LIMIT 1").fetchone()
    assert acts == ("secondary", pytest.approx(15 * 60_000, abs=60_000))


def test_an_act_decided_on_an_old_state_is_refused(page: Page, copied: Callable[[Moment], Path]) -> None:
    config = copied(Moment.CALM)
    with dashboard(config) as address:
        go(page, f"{address}/control")
        page.get_by_role("button", name="Pin secondary").click()
        dialog = page.locator(DIALOG)
        dialog.get_by_label("Reason").fill("Provider maintenance tonight")
        with sqlite3.connect(config.parent / "switchgear.db") as connection:
            connection.execute(
                "UPDATE fleet_state SET epoch = epoch + 1, document = json_set(document, '$.epoch', epoch + 1)"
            )
        with sqlite3.connect(config.parent / "switchgear.db") as connection:
            (moved,) = connection.execute("SELECT epoch FROM fleet_state").fetchone()
        expect(dialog).to_contain_text(f"Decided on epoch {moved - 1} of chat")
        dialog.get_by_role("button", name="Pin secondary").click()
        expect(dialog).to_contain_text("Somebody or something was faster")
        expect(dialog).to_contain_text(f"Decided on epoch {moved} of chat")  # the next click is about what is shown
        expect(dialog.get_by_label("Reason")).to_have_value("Provider maintenance tonight")


def test_an_alert_is_silenced_from_its_link(page: Page, copied: Callable[[Moment], Path]) -> None:
    config = copied(Moment.DURING)
    with dashboard(config) as address:
        go(page, f'{address}/alerts?silence=alertname%3D"SecondaryActiveTooLong",manager%3D"chat"')
        dialog = page.locator(DIALOG)
        expect(dialog.get_by_label("Matchers")).to_have_value('alertname="SecondaryActiveTooLong"\nmanager="chat"')
        dialog.get_by_label("Reason").fill("We know, the provider is on it")
        dialog.get_by_role("button", name="Silence").click()
        expect(page.locator(".sg-silence", has_text="We know")).to_be_visible()
        expect(page.locator(".sg-table")).to_contain_text("silenced")


def test_a_delivery_that_failed_is_replayed(page: Page, copied: Callable[[Moment], Path]) -> None:
    config = copied(Moment.DURING)
    with dashboard(config) as address:
        go(page, f"{address}/deliveries")
        page.locator(".sg-rows tr", has_text="Failed for good").first.click()
        dialog = page.locator(DIALOG)
        expect(dialog.locator(".sg-table tbody tr")).to_have_count(4)
        dialog.get_by_role("button", name="Replay").click()
        expect(page.locator(".sg-badge", has_text="Pending").first).to_be_visible()
    with sqlite3.connect(config.parent / "switchgear.db") as connection:
        assert connection.execute("SELECT count(*) FROM outbox WHERE state = 'pending'").fetchone() == (1,)


def test_a_viewer_may_look_and_not_act_and_nobody_without_a_key_sees_anything(
    page: Page, stores: dict[Moment, Path]
) -> None:
    keys = {"SWITCHGEAR_OPERATOR_KEYS": "ana:open-sesame", "SWITCHGEAR_VIEWER_KEYS": "bob:let-me-see"}
    with dashboard(stores[Moment.CALM], **keys) as address:
        go(page, address)
        expect(page.locator(".sg-signin")).to_be_visible()
        assert "gemini" not in page.content()
        page.get_by_label("Key").fill("wrong")
        page.get_by_role("button", name="Sign in").click()
        expect(page.locator(".sg-signin")).to_contain_text("Nobody has this key")
        page.get_by_label("Key").fill("let-me-see")
        page.get_by_role("button", name="Sign in").click()
        expect(page.locator(".sg-headline")).to_be_visible()
        go(page, f"{address}/control")
        expect(page.get_by_text("You may look and not act")).to_be_visible()
        expect(page.get_by_role("button", name="Pin secondary")).to_be_disabled()
        page.get_by_role("button", name="Sign out").click()
        expect(page.locator(".sg-signin")).to_be_visible()


def test_a_link_from_a_notification_leads_where_it_says_once_its_reader_has_signed_in(
    page: Page, stores: dict[Moment, Path]
) -> None:
    with dashboard(stores[Moment.DURING], SWITCHGEAR_OPERATOR_KEYS="ana:open-sesame") as address:
        go(page, f"{address}/alerts?rule=SecondaryActiveTooLong")
        expect(page.get_by_text("Page not found")).not_to_be_attached()
        for key in ("wrong", "open-sesame"):
            page.get_by_label("Key").fill(key)
            page.get_by_role("button", name="Sign in").click()
            page.wait_for_load_state()
            if key == "wrong":
                expect(page.locator(".sg-signin")).to_contain_text("Nobody has this key")
        expect(page.locator(".sg-heading", has_text="SecondaryActiveTooLong")).to_be_visible()
        assert page.url.endswith("/alerts?rule=SecondaryActiveTooLong")


@pytest.mark.parametrize("width", [390, 720, 1024, 1440], ids=["phone", "zoomed", "tablet", "desktop"])
def test_no_page_scrolls_sideways_and_nothing_sticks_out_of_its_card(chrome: Browser, outage: str, width: int) -> None:
    opened = visit(chrome)
    opened.set_viewport_size({"width": width, "height": 844})
    for path in (*ALL_PAGES, f"/incidents?at={int(time.time() * 1000)}"):
        go(opened, outage + path)
        assert sideways(opened) <= 0, path
        assert sticking_out(opened) == [], path
    opened.context.close()


def test_no_page_of_another_site_can_put_ours_into_a_frame(page: Page, outage: str) -> None:
    page.goto(f"data:text/html,<iframe src='{outage}/deliveries'></iframe>")
    until(page, lambda: [frame.url for frame in page.frames[1:]] == ["chrome-error://chromewebdata/"])


def test_nothing_is_fetched_from_elsewhere(page: Page, outage: str) -> None:
    foreign: list[str] = []
    page.on("request", lambda request: foreign.append(request.url) if outage not in request.url else None)
    for path in ALL_PAGES:
        go(page, outage + path)
    assert [url for url in foreign if not url.startswith(("data:", "blob:"))] == []


def test_the_playground_says_what_to_do_when_the_gateway_is_stopped(page: Page, outage: str) -> None:
    go(page, f"{outage}/playground")
    page.get_by_label("Prompt").fill("Hello")
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_text("does not answer")).to_be_visible()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_page_passes_axe(chrome: Browser, outage: str, dark: bool) -> None:
    opened = visit(chrome, dark=dark)
    for path in (*ALL_PAGES, f"/incidents?at={int(time.time() * 1000)}"):
        go(opened, outage + path)
        assert violations(opened) == [], path
    opened.context.close()


def violations(page: Page) -> list[tuple[str, str]]:
    """What axe finds, with where it was found."""
    page.wait_for_timeout(1_000)
    page.add_script_tag(path=AXE)
    found = page.evaluate("axe.run(document, {runOnly: ['wcag2a', 'wcag2aa']})")
    return [(rule["id"], rule["nodes"][0]["target"]) for rule in found["violations"]]


OPENED = {
    "/control": lambda page: page.get_by_role("button", name="Pin primary"),
    "/requests?span=24h": lambda page: page.locator(".sg-rows a").first,
    "/deliveries": lambda page: page.locator(".sg-rows a").first,
    "/alerts": lambda page: page.get_by_role("button", name="New silence"),
    "/incidents?at={now}": lambda page: page.get_by_role("button", name="Copy summary"),
}


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_dialog_passes_axe_on_a_phone(chrome: Browser, outage: str, dark: bool) -> None:
    opened = visit(chrome, dark=dark, phone=True)
    for path, button in OPENED.items():
        go(opened, outage + path.format(now=int(time.time() * 1000)))
        button(opened).click()
        expect(opened.locator(f"{DIALOG}, {POPOVER}")).to_be_visible()
        assert violations(opened) == [], path
        assert sideways(opened) <= 0, path
    opened.context.close()


def test_a_dialog_that_is_open_is_left_alone_by_what_refreshes(page: Page, outage: str) -> None:
    go(page, f"{outage}/control")
    page.get_by_role("button", name="Pin secondary").click()
    reason = page.locator(DIALOG).get_by_label("Reason")
    reason.fill("half a sentence")
    page.wait_for_timeout(6_500)  # the banner refreshes every five seconds
    expect(reason).to_have_value("half a sentence")
