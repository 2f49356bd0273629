"""What every page has: the stylesheet, the title row with manager and live switch, the banner, the footer.

A page is a function inside `frame`; when the store or the configuration cannot be used, the frame says so in one
sentence instead of the page.
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlencode

import streamlit as st

from dashboard import look, shared
from dashboard.markup import Html, div, icon, span, tag
from dashboard.parts import empty, role_tag, show
from dashboard.reading import Live
from dashboard.times import Clockface
from engine.core.errors import SwitchgearError

PAGES = {
    "now": "/",
    "incidents": "/incidents",
    "requests": "/requests",
    "alerts": "/alerts",
    "deliveries": "/deliveries",
    "control": "/control",
    "playground": "/playground",
}


def address(page: str, **parameters: str | int | None) -> str:
    """Where a page is, with its state; a manager other than the only one is kept."""
    known = {key: str(value) for key, value in parameters.items() if value is not None and value != ""}
    manager = st.query_params.get("manager")
    if manager:
        known.setdefault("manager", manager)
    return PAGES[page] + (f"?{urlencode(known)}" if known else "")


def clock() -> Clockface:
    """The present as this viewer reads it."""
    return Clockface(shared.now_ms(), st.context.timezone or "UTC")


def theme() -> str:
    """The viewer's theme, `light` or `dark`."""
    return st.context.theme.type or "light"


def styles() -> None:
    """The stylesheet; first thing on every run, and it takes no room."""
    st.html(f"<style>{look.variables(theme())}{look.STYLESHEET.read_text(encoding='utf-8')}</style>")


def soft_links() -> None:
    """Let links in markup change pages without loading the app again; our own constant script, nothing is put into it."""
    st.html(f"<script>{look.LINKS.read_text(encoding='utf-8')}</script>", unsafe_allow_javascript=True)


def managers() -> list[str]:
    """Managers of the configuration."""
    return list(shared.config().managers)


def title(text: str, note: str = "", *, live: bool = False) -> tuple[str, bool]:
    """The title row.

    Args:
        text: The page's name.
        note: What it is for.
        live: Whether the page refreshes itself and can be paused.

    Returns:
        The chosen manager, and whether the page should refresh itself.
    """
    names = managers()
    running = False
    with st.container(horizontal=True, vertical_alignment="center", key="title-row"):
        with st.container(width="stretch"):
            show(div("sg-title", tag("h1", text), span("sg-note", note)))
        if len(names) > 1:
            chosen = st.selectbox(
                "Manager", names, key="manager", bind="query-params", label_visibility="collapsed", width=180
            )
        else:
            chosen = names[0]
        if live:
            running = st.toggle(
                "Live",
                value=True,
                key="live",
                bind="query-params",
                help="Off: the page stands still until you turn it on again",
            )
    return chosen or names[0], running


def banner(live: Live, face: Clockface) -> Html | None:
    """The override that is on, with its countdown; the same on every page."""
    document = live.document
    if document is None:
        return None
    lines = []
    if (pin := document.override) is not None:
        how = " without fallback" if pin.strict else ""
        lines.append(
            div(
                "sg-banner-line",
                icon("push_pin"),
                span(
                    "",
                    tag("b", "Override: "),
                    "pinned to ",
                    role_tag(str(pin.role)),
                    how,
                    f" by {pin.by} · “{pin.reason}” · ends in ",
                    tag("b", face.until(pin.expires_ms)),
                ),
            )
        )
    for role, force in document.forced.items():
        word = force.state.replace("_", " ")
        lines.append(
            div(
                "sg-banner-line",
                icon("front_hand"),
                span(
                    "",
                    tag("b", f"Breaker {word}: "),
                    role_tag(role),
                    f" by {force.by} · “{force.reason}” · ends in ",
                    tag("b", face.until(force.expires_ms)),
                ),
            )
        )
    if not lines:
        return None
    return tag(
        "aside",
        div("", *lines),
        tag("a", "Control", href=address("control"), target="_self"),
        cls="sg-banner",
        role="status",
    )


@st.fragment(run_every=5)
def _banner_fragment(manager: str) -> None:
    found = banner(shared.live(manager), clock())
    show(found if found is not None else div("sg-nothing"))


def page(body: Callable[[], None]) -> Callable[[], None]:
    """Wrap a page: stylesheet first, one sentence instead of a traceback when something cannot be read."""

    def run() -> None:
        styles()
        soft_links()
        try:
            body()
        except SwitchgearError as error:
            show(div("sg-card sg-trouble", empty(_sentence(error), symbol="error")))
            st.button("Try again", icon=":material/refresh:", key="again")

    run.__name__ = body.__name__
    run.__qualname__ = body.__qualname__
    return run


def guarded(body: Callable[[], None]) -> None:
    """Run a part of a page that refreshes by itself; trouble is a sentence here too."""
    try:
        body()
    except SwitchgearError as error:
        show(div("sg-card sg-trouble", empty(_sentence(error), symbol="error")))


def _sentence(error: SwitchgearError) -> str:
    text = str(error).strip()
    return text[:1].upper() + text[1:]


def banner_row(manager: str) -> None:
    """The banner's place, under the title."""
    with st.container(key="banner"):
        _banner_fragment(manager)
