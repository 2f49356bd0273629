"""What every page has: the stylesheet, the title row with manager and live switch, the banner, the footer.

A page is a function inside `frame`; when the store or the configuration cannot be used, the frame says so in one
sentence instead of the page.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import streamlit as st

from dashboard import look, shared, viewer
from dashboard.markup import Child, Html, div, icon, quoted, span, tag
from dashboard.parts import empty, role_tag, show
from dashboard.reading import Live
from dashboard.times import Clockface
from engine.control import Actor, Rank
from engine.core.agreement import Force, Override
from engine.core.errors import SwitchgearError, Unauthorized

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


def named(name: str, labels: Mapping[str, str], default: str | None = None) -> dict[str, Any]:
    """What binds a choice to the address by its word; Streamlit's own binding writes the label that is shown.

    Another choice begins at the newest page again.

    Args:
        name: The parameter.
        labels: What is shown, by word.
        default: The word of an address without the parameter.

    Returns:
        Arguments of the widget that chooses one of the words.
    """
    key, word = f"named-{name}", st.query_params.get(name, "")
    st.session_state[key] = word if word in labels else default
    st.session_state.setdefault("named", {})[name] = default
    return {"options": list(labels), "format_func": labels.__getitem__, "key": key, "on_change": _chosen}


def _chosen() -> None:
    st.query_params.pop("before", None)
    as_shown()


def as_shown() -> None:
    """Make the address say what the controls show; the callback of every widget beside a `named` one.

    Whoever is quicker than our last answer acts on an address that lacks their last choice, and the choice would be
    undone in the very run that acts on it. A way back or a link has no callback, there the address is right.
    """
    for name, default in st.session_state.get("named", {}).items():
        if (key := f"named-{name}") not in st.session_state:
            continue  # of another page
        chosen = st.session_state[key]
        if chosen is None or chosen == default:
            st.query_params.pop(name, None)
        elif st.query_params.get(name) != chosen:
            st.query_params[name] = chosen


def clock() -> Clockface:
    """The present as this viewer reads it."""
    return Clockface(shared.now_ms(), st.context.timezone or "UTC")


def theme() -> str:
    """The viewer's theme, `light` or `dark`."""
    return st.context.theme.type or "light"


def styles() -> None:
    """The stylesheet; first thing on every run, and it takes no room."""
    st.html(f"<style>{look.variables(theme())}{look.STYLESHEET.read_text(encoding='utf-8')}</style>")


def script(file: Path) -> None:
    """Run a constant script of ours in the browser."""
    st.html(f"<script>{file.read_text(encoding='utf-8')}</script>", unsafe_allow_javascript=True)


def oidc_configured() -> bool:
    """Whether Streamlit's own sign-in is set up in its secrets."""
    try:
        return "auth" in st.secrets
    except FileNotFoundError:
        return False


def actor() -> Actor | None:
    """Who is looking; `None` when they must sign in. Asked anew whenever somebody acts."""
    oidc = oidc_configured()
    email = str(st.user.get("email") or "") if oidc and st.user.is_logged_in else None
    visit = viewer.Visit(st.context.cookies.to_dict(), email or None, oidc)
    return viewer.identify(shared.config(), visit, shared.now_ms() / 1000)


def require_actor() -> Actor:
    """Who acts.

    Raises:
        Unauthorized: Their session has ended.
    """
    found = actor()
    if found is None:
        msg = "your session has ended: reload the page and sign in again"
        raise Unauthorized(msg)
    return found


def may_act() -> bool:
    """Whether who is looking may change anything; only to say so in advance, the act itself asks again."""
    found = actor()
    return found is not None and found.rank is Rank.OPERATOR


def managers() -> list[str]:
    """Managers of the configuration."""
    return list(shared.config().managers)


def title(text: str, note: str = "", *, live: Callable[[str], bool] | None = None) -> tuple[str, bool]:
    """The title row.

    Args:
        text: The page's name.
        note: What it is for.
        live: Whether the page of a manager refreshes itself and can be paused; none does when nothing is said.

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
                "Manager",
                names,
                key="manager",
                bind="query-params",
                label_visibility="collapsed",
                width=180,
                on_change=as_shown,
            )
        else:
            chosen = names[0]
        manager = chosen or names[0]
        if live is not None and live(manager):
            running = st.toggle(
                "Live",
                value=True,
                key="live",
                bind="query-params",
                help="Off: the page stands still until you turn it on again",
            )
    return manager, running


def banner(live: Live, face: Clockface) -> Html | None:
    """The override that is on, with its countdown; the same on every page."""
    document = live.document
    if document is None:
        return None
    lines = []
    if (pin := document.override) is not None:
        told = ("pinned to ", role_tag(str(pin.role)), " without fallback" if pin.strict else "")
        lines.append(_banner_line("push_pin", "Override: ", told, pin, face))
    for role, force in document.forced.items():
        lead = f"Breaker {force.state.replace('_', ' ')}: "
        lines.append(_banner_line("front_hand", lead, (role_tag(role),), force, face))
    if not lines:
        return None
    return tag(
        "aside",
        div("", *lines),
        tag("a", "Control", href=address("control")),
        cls="sg-banner",
        role="status",
    )


def _banner_line(symbol: str, lead: str, told: tuple[Child, ...], act: Override | Force, face: Clockface) -> Html:
    """What an operator decided, with who, why and for how long yet."""
    ends = tag("b", face.until(act.expires_ms))
    words = span("", tag("b", lead), *told, f" by {act.by} · ", quoted(act.reason), " · ends in ", ends)
    return div("sg-banner-line", icon(symbol), words)


@st.fragment(run_every=5)
def _banner_fragment(manager: str) -> None:
    try:
        found = banner(shared.live(manager), clock())
    except SwitchgearError:  # the page below says so
        found = None
    show(found if found is not None else div("sg-nothing"))


def page(body: Callable[[], None]) -> Callable[[], None]:
    """Wrap a page: stylesheet first, one sentence instead of a traceback when something cannot be read."""

    def run() -> None:
        styles()
        script(look.LINKS)  # so that links in markup change pages without loading the app again
        try:
            body()
            if (done := st.session_state.pop("done", None)) is not None:
                st.toast(done, icon=":material/check_circle:")
        except SwitchgearError as error:
            trouble(error)

    run.__name__ = body.__name__
    run.__qualname__ = body.__qualname__
    return run


def guarded(body: Callable[[], None]) -> None:
    """Run a part of a page that refreshes by itself; trouble is a sentence here too."""
    try:
        body()
    except SwitchgearError as error:
        _show_trouble(error)


def trouble(error: SwitchgearError) -> None:
    """What cannot be shown and what to do about it, instead of a page."""
    _show_trouble(error)
    st.button("Try again", icon=":material/refresh:", key="again")


def _show_trouble(error: SwitchgearError) -> None:
    text = str(error).strip()
    show(div("sg-card sg-trouble", empty(text[:1].upper() + text[1:], symbol="error")))


def footer(visitor: Actor) -> None:
    """Who is looking, at the end of the sidebar; and how they got in."""
    config = shared.config()
    with st.sidebar, st.container(key="footer"):
        if config.is_demo:
            show(div("sg-demo", icon("science"), span("", tag("b", "Demo"), " – simulated models, made-up traffic")))
        entered = viewer.door(config, oidc=oidc_configured())
        if entered is viewer.Door.LOOPBACK:
            show(
                div(
                    "sg-foot",
                    icon("lock_open"),
                    span("", "This machine only: no sign-in needed, you act as an operator."),
                )
            )
            return
        show(div("sg-foot", icon("person"), span("", tag("b", visitor.name), f", {visitor.rank}")))
        if entered is viewer.Door.OIDC and st.context.cookies.get(viewer.COOKIE) is None:
            st.button("Sign out", icon=":material/logout:", on_click=st.logout, type="tertiary")
        else:
            show(
                tag(
                    "form",
                    tag("button", "Sign out", type="submit", cls="sg-plain-button"),
                    method="post",
                    action="/sign-out",
                )
            )


def pager(following: str | int | None) -> None:
    """The way to older rows and back to the newest; the place in the list is in the address.

    Args:
        following: Where the next page begins, `None` on the last one.
    """
    with st.container(horizontal=True, horizontal_alignment="right", key="pager"):
        if st.query_params.get("before"):
            st.button("Newest", icon=":material/first_page:", on_click=_turn, args=(None,))
        if following is not None:
            st.button(
                "Older", icon=":material/navigate_next:", icon_position="right", on_click=_turn, args=(str(following),)
            )


def _turn(cursor: str | None) -> None:
    as_shown()
    if cursor is None:
        st.query_params.pop("before", None)
    else:
        st.query_params["before"] = cursor


def banner_row(manager: str) -> None:
    """The banner's place, under the title."""
    with st.container(key="banner"):
        _banner_fragment(manager)
