"""Control: pin a model, force a breaker, return to automatic; and who did what, when and why."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

import streamlit as st

from dashboard import acts, consequence, fleet_view, parts, shared, wording
from dashboard.breakers import breaker
from dashboard.consequence import DEFAULT_EXPIRY, EXPIRIES, Consequence
from dashboard.frame import banner_row, clock, may_act, page, pager, require_actor, title
from dashboard.markup import Child, Html, div, icon, join, literal, quoted, span, tag
from dashboard.model_card import model_card
from dashboard.parts import badge, role_tag
from dashboard.reading import ROLES, Live
from dashboard.times import Clockface
from dashboard.wording import Face, Tone
from engine import queries
from engine.control import Actor
from engine.core.errors import SwitchgearError
from engine.core.events import OverrideRecord

AUDIT_ROWS = 20


@page
def control() -> None:
    """Mode, breakers, audit and who is alive. It does not refresh by itself, so that it never fights a form."""
    manager, _ = title("Control", "What operators decide, and the record of it")
    banner_row(manager)
    live, face, allowed = shared.live(manager), clock(), may_act()
    if live.document is None:
        parts.show(
            parts.empty_card("Nothing is agreed on yet: the first request starts the agreement.", symbol="handshake")
        )
        return
    if not allowed:
        parts.show(
            parts.empty_card(
                "You may look and not act: sign in with an operator key to change anything.", symbol="visibility"
            )
        )
    left, right = st.columns(2)
    with left, st.container(key="card-mode", height="stretch"):
        _mode(live, face, manager, allowed=allowed)
    with right, st.container(key="card-breakers", height="stretch"):
        _breakers(live, face, manager, allowed=allowed)
    before = st.query_params.get("before")
    audit = shared.ask(lambda c: queries.overrides(c, manager, before=before, limit=AUDIT_ROWS + 1))
    parts.show(
        div(
            "sg-card sg-flush-top",
            parts.heading("Audit log", note="append-only, every act and every expiry"),
            _audit(audit[:AUDIT_ROWS], face),
        )
    )
    pager(audit[AUDIT_ROWS - 1].id if len(audit) > AUDIT_ROWS else None)
    parts.show(fleet_view.card(live.fleet))


def _mode(live: Live, face: Clockface, manager: str, *, allowed: bool) -> None:
    document = live.document
    pin = document.override if document else None
    if pin is None:
        state, told = Face("Automatic", "autorenew", Tone.OK), Html("Switchgear decides which model serves.")
    else:
        state = Face("Pinned", "push_pin", Tone.WARN)
        how = "without fallback, " if pin.strict else ""
        ends = f", {how}ends in {face.until(pin.expires_ms)}."
        told = join(f"Pinned to {pin.role} by {pin.by}: ", quoted(pin.reason), ends)
    parts.show(parts.heading("Mode"), div("sg-mode", badge(state), span("", told)))
    with st.container(horizontal=True):
        for role in ROLES:
            if st.button(f"Pin {role}", key=f"pin-{role}", icon=":material/push_pin:", disabled=not allowed):
                _pin_dialog(manager, role)
        if st.button(
            "Return to automatic", key="release", icon=":material/autorenew:", disabled=not allowed or pin is None
        ):
            _release_dialog(manager)


def _breakers(live: Live, face: Clockface, manager: str, *, allowed: bool) -> None:
    parts.show(parts.heading("Breakers", note="over all instances"))
    for role in ROLES:
        found = breaker(live, role)
        forced = live.document.forced.get(role) if live.document else None
        told: Child = found.detail
        if forced is not None:
            told = join(f"by {forced.by}: ", quoted(forced.reason), f", ends in {face.until(forced.expires_ms)}")
        with st.container(horizontal=True, vertical_alignment="center", key=f"breaker-{role}"):
            with st.container(width="stretch"):
                parts.show(div("sg-mode", role_tag(role), badge(found.face), span("sg-note", told)))
            if st.button("Force open", key=f"open-{role}", disabled=not allowed):
                _force_dialog(manager, role, "forced_open")
            if st.button("Force closed", key=f"closed-{role}", disabled=not allowed):
                _force_dialog(manager, role, "forced_closed")
            if st.button("Automatic", key=f"auto-{role}", disabled=not allowed or forced is None):
                _force_dialog(manager, role, "auto")


def _forget() -> None:
    """The dialog was left: the next one is decided on what is true then."""
    for name in ("decided-on", "refused"):
        st.session_state.pop(name, None)


@st.dialog("Pin a model", icon=":material/push_pin:", on_dismiss=_forget)
def _pin_dialog(manager: str, role: str) -> None:
    live = shared.live(manager)
    _target(live, role)
    strict = st.checkbox(
        "Without fallback",
        key="strict",
        help="Callers get errors instead of the other model's answers while this one fails",
    )
    told = consequence.of_pin(live, role, strict=strict)
    _form(
        manager,
        told,
        f"Pin {role}",
        expiry=True,
        epoch=_epoch(live, f"pin-{role}"),
        act=lambda who, reason, ttl, epoch: acts.set_override(
            who, manager, role, reason=reason, ttl=ttl, strict=strict, epoch=epoch
        ),
    )


@st.dialog("Return to automatic", icon=":material/autorenew:", on_dismiss=_forget)
def _release_dialog(manager: str) -> None:
    live = shared.live(manager)
    told = consequence.of_release(live)
    _form(
        manager,
        told,
        "Return to automatic",
        expiry=False,
        epoch=_epoch(live, "release"),
        act=lambda who, reason, _, epoch: acts.clear_override(who, manager, reason=reason, epoch=epoch),
    )


@st.dialog("Force a breaker", icon=":material/front_hand:", on_dismiss=_forget)
def _force_dialog(manager: str, role: str, state: str) -> None:
    live = shared.live(manager)
    _target(live, role)
    told = consequence.of_force(live, role, state)
    verb = {"forced_open": f"Force {role} open", "forced_closed": f"Force {role} closed"}.get(
        state, f"Let {role} decide"
    )
    _form(
        manager,
        told,
        verb,
        expiry=state != "auto",
        epoch=_epoch(live, f"{state}-{role}"),
        act=lambda who, reason, ttl, epoch: acts.force_breaker(
            who, manager, role, state, reason=reason, ttl=ttl, epoch=epoch
        ),
    )


def _epoch(live: Live, dialog: str) -> int:
    """The epoch this dialog was opened on: what is shown is what is decided on, however long it stays open."""
    now = live.document.epoch if live.document else 0
    known = st.session_state.get("decided-on")
    if known is None or known[0] != dialog:
        st.session_state["decided-on"] = known = (dialog, now)
    return int(known[1])


def _target(live: Live, role: str) -> None:
    card = model_card(live, role)
    figures = [parts.figure(one) for one in card.figures[:3]]
    parts.show(
        div(
            "sg-target",
            div("sg-mode", role_tag(role), span("sg-mono", card.model), badge(card.breaker.face)),
            div("sg-figures sg-three", *figures),
        )
    )


def _form(
    manager: str,
    told: Consequence,
    verb: str,
    *,
    expiry: bool,
    epoch: int,
    act: Callable[[Actor, str, float, int], object],
) -> None:
    symbol = {Tone.BAD: "dangerous", Tone.WARN: "warning"}.get(told.tone, "info")
    parts.show(div(f"sg-consequence sg-{told.tone}", icon(symbol), span("", told.text)))
    reason = st.text_area(
        "Reason", key="reason", placeholder="What the next person on call should know", height=90, max_chars=300
    )
    ttl = EXPIRIES[DEFAULT_EXPIRY]
    if expiry:
        chosen = st.segmented_control(
            "Ends by itself after", list(EXPIRIES), default=DEFAULT_EXPIRY, key="expiry", required=True
        )
        ttl = EXPIRIES[chosen or DEFAULT_EXPIRY]
    typed = st.text_input(f"Type {told.confirm} to confirm", key="confirm") if told.confirm else ""
    decided = f"Decided on epoch {epoch} of {manager}; refused if the agreement has moved since you opened this."
    parts.show(span("sg-note", decided))
    if (refused := st.session_state.pop("refused", None)) is not None:
        st.error(literal(refused), icon=":material/block:")
    if st.button(verb, type="primary", key="do"):
        missing = consequence.refusal(reason, told.confirm, typed)
        if missing:
            st.warning(literal(missing), icon=":material/edit:")
            return
        try:
            act(require_actor(), reason, ttl, epoch)
        except SwitchgearError as error:
            _refuse(error)
        _forget()
        st.session_state["done"] = f"{verb}: done and on record."
        st.rerun()


def _refuse(error: SwitchgearError) -> NoReturn:
    """Draw the dialog anew with what is true by now, so that nobody acts on a state they have not seen."""
    shared.forget()
    _forget()
    st.session_state["refused"] = consequence.explain(error)
    st.rerun(scope="fragment")


def _audit(records: list[OverrideRecord], face: Clockface) -> Html:
    if not records:
        return parts.empty("Nobody has ever changed anything by hand.", symbol="verified_user")
    rows: list[list[Child]] = [
        [
            span("sg-num", face.at(one.ts_ms)),
            badge(consequence.act_face(one.action)),
            tag("b", one.actor),
            join(wording.act(one.action, one.role), " without fallback" if one.strict else None),
            quoted(one.reason),
            face.at(one.expires_ms) if one.expires_ms is not None else "–",
            span("sg-num", str(one.epoch)),
        ]
        for one in records
    ]
    return parts.table(("When", "Act", "Who", "What", "Why", "Until", "Epoch"), rows, label="Audit log")
