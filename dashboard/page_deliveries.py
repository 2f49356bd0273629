"""Deliveries: who was notified, did it arrive, and what to do when it did not."""

from __future__ import annotations

import json
from collections.abc import Sequence

import streamlit as st

from alerts.receivers import Receiver, receivers_of
from dashboard import acts, parts, shared, wording
from dashboard.frame import address, as_shown, banner_row, clock, may_act, named, page, pager, require_actor, title
from dashboard.markup import Child, Html, div, link, literal, span, tag
from dashboard.parts import badge
from dashboard.times import Clockface, milliseconds, whole
from dashboard.wording import Face, Tone
from engine.core.errors import SwitchgearError
from engine.queries import control_room as ask
from engine.queries.control_room import Delivery, Notification, ReceiverSums
from engine.sqlite import Connection

PAGE_ROWS = 30
STATES = ("pending", "delivered", "dead", "cancelled")


@page
def deliveries() -> None:
    """Receivers and the outbox."""
    manager, _ = title("Deliveries", "At least once, in order, with the same id and bytes")
    banner_row(manager)
    configured, face = receivers_of(shared.config()), clock()
    receiver, state = _filters(configured)
    before = whole(st.query_params.get("before"))

    def read(connection: Connection) -> tuple[list[ReceiverSums], tuple[list[Notification], int | None]]:
        page = ask.notifications(connection, receiver=receiver, state=state, before=before, limit=PAGE_ROWS)
        return ask.receivers(connection), page

    sums, (rows, following) = shared.ask(read)
    with st.container(key="card-receivers"):
        _receivers(configured, sums, face)
    _outbox(rows, face)
    pager(following)
    if chosen := st.query_params.get("notification"):
        _drawer(chosen)


def _filters(configured: Sequence[Receiver]) -> tuple[str | None, str | None]:
    with st.container(horizontal=True, vertical_alignment="bottom"):
        receiver = st.selectbox(
            "Receiver",
            [one.name for one in configured],
            index=None,
            placeholder="All",
            key="receiver",
            bind="query-params",
            width=200,
            on_change=as_shown,
        )
        state = st.selectbox(
            "State",
            index=None,
            placeholder="Any",
            width=180,
            **named("state", {word: wording.face(wording.DELIVERIES, word).word for word in STATES}),
        )
    return receiver, state


def _receivers(configured: Sequence[Receiver], sums: Sequence[ReceiverSums], face: Clockface) -> None:
    parts.show(parts.heading("Receivers"))
    if not configured and not sums:
        parts.show(
            parts.empty(
                "Nobody is told: add [[alerts.receivers]] to the configuration. Alerts are on this "
                "dashboard and in /metrics.",
                symbol="person_off",
            )
        )
        return
    by_name = {one.receiver: one for one in sums}
    for one in configured:
        known = by_name.get(one.name)
        with st.container(horizontal=True, vertical_alignment="center", key=f"receiver-{one.name}"):
            with st.container(width="stretch"):
                parts.show(_receiver(one, known, face))
            if st.button("Send a test", key=f"test-{one.name}", icon=":material/send:", disabled=not may_act()):
                _test(one.name)
            if (
                known is not None
                and known.dead
                and st.button(
                    f"Replay {known.dead}", key=f"replay-{one.name}", icon=":material/replay:", disabled=not may_act()
                )
            ):
                _replay(receiver=one.name)


def _receiver(one: Receiver, known: ReceiverSums | None, face: Clockface) -> Html:
    if one.lacks:
        state = Face("Not usable", "warning", Tone.WARN)
    elif known is not None and known.dead:
        state = Face(f"{known.dead} failed for good", "cancel", Tone.BAD)
    elif known is not None and known.pending:
        state = Face(f"{known.pending} waiting", "schedule", Tone.WARN)
    else:
        state = Face("Fine", "check_circle", Tone.OK)
    success = face.ago(known.last_success_ms) if known is not None and known.last_success_ms is not None else "never"
    failure = f" · last failure: {known.last_failure}" if known is not None and known.last_failure else ""
    return div(
        "sg-receiver",
        tag("b", one.name),
        span("sg-note", one.channel.kind),
        badge(state),
        span("sg-note", "last success ", success, f" · {known.delivered if known else 0} delivered{failure}"),
        span("sg-note sg-text-warn", one.lacks) if one.lacks else None,
    )


def _outbox(rows: Sequence[Notification], face: Clockface) -> None:
    if not rows:
        parts.show(
            parts.empty_card("No notification yet: nothing has fired, or nothing matches the filters.", symbol="outbox")
        )
        return
    cells: list[list[Child]] = [
        [
            link(
                address("deliveries", notification=one.id), face.at(one.created_ms), cls="sg-link sg-num sg-whole-row"
            ),
            one.receiver,
            span("", subject(one)),
            badge(wording.face(wording.DELIVERIES, one.state)),
            span("sg-num", str(one.attempts)),
            _outlook(one, face),
        ]
        for one in rows
    ]
    table = parts.table(
        ("Time", "Receiver", "About", "State", "Tries", "Outcome"),
        cells,
        cls="sg-rows",
        label="Notifications, newest first",
    )
    parts.show(div("sg-card sg-flush-top", parts.heading("Notifications", note="newest first"), table))


def subject(one: Notification) -> str:
    """What a notification is about, as far as its body says so in a shape we know."""
    try:
        body = json.loads(one.body)
    except ValueError:
        return one.kind
    found = body if isinstance(body, dict) else {}
    found = found.get("data", found) if isinstance(found.get("data", found), dict) else found
    alerts = found.get("alerts")
    names = (
        sorted({str(alert.get("labels", {}).get("alertname", "")) for alert in alerts if isinstance(alert, dict)})
        if isinstance(alerts, list)
        else []
    )
    status = found.get("status", "")
    return (
        " ".join([", ".join(name for name in names if name), str(status)]).strip()
        or str(found.get("text", one.kind))[:80]
    )


def _outlook(one: Notification, face: Clockface) -> Child:
    if one.state == "pending":
        return f"next try in {face.until(one.next_attempt_ms)}" + (f": {one.last_error}" if one.last_error else "")
    if one.state == "delivered":
        return span("sg-note", f"status {one.last_status}" if one.last_status else "taken")
    return span("sg-text-bad" if one.state == "dead" else "sg-note", one.last_error or "–")


def _dismissed() -> None:
    st.query_params.pop("notification", None)


@st.dialog("Notification", width="medium", position="right", icon=":material/send:", on_dismiss=_dismissed)
def _drawer(notification_id: str) -> None:
    found = shared.ask(lambda connection: ask.notification(connection, notification_id))
    if found is None:
        parts.show(parts.empty("This notification is not on record.", symbol="search_off"))
        return
    one, tries = found
    face = clock()
    parts.show(
        div(
            "sg-drawer",
            div(
                "sg-drawer-top",
                badge(wording.face(wording.DELIVERIES, one.state)),
                span("sg-note", face.at(one.created_ms)),
            ),
            div("sg-story", f"{subject(one)} to {one.receiver}"),
            _attempts(tries, face),
        )
    )
    if one.state == "dead" and st.button("Replay", icon=":material/replay:", type="primary", disabled=not may_act()):
        _replay(notification_id=one.id)
    st.caption("What was sent")
    st.code(_pretty(one.body), language="json", wrap_lines=True)


def _attempts(tries: Sequence[Delivery], face: Clockface) -> Html:
    if not tries:
        return tag("p", "Not tried yet.", cls="sg-note")
    rows: list[list[Child]] = [
        [
            span("sg-num", str(one.n)),
            face.at(one.ts_ms),
            str(one.status_code or "–"),
            milliseconds(one.duration_ms),
            one.error or "taken",
        ]
        for one in tries
    ]
    return parts.table(("Try", "When", "Status", "Took", "Outcome"), rows, label="Attempts")


def _pretty(body: str) -> str:
    try:
        return json.dumps(json.loads(body), indent=2, ensure_ascii=False)
    except ValueError:
        return body


def _test(name: str) -> None:
    try:
        taken, told = acts.try_receiver(require_actor(), name)
    except SwitchgearError as error:
        st.toast(literal(str(error)), icon=":material/block:")
        return
    st.toast(literal(f"Test to {name}: {told}"), icon=":material/check_circle:" if taken else ":material/warning:")


def _replay(*, notification_id: str | None = None, receiver: str | None = None) -> None:
    try:
        count = acts.replay(require_actor(), notification_id=notification_id, receiver=receiver)
    except SwitchgearError as error:
        st.toast(literal(str(error)), icon=":material/block:")
        return
    st.toast(f"{count} {'notification is' if count == 1 else 'notifications are'} due again", icon=":material/replay:")
    st.rerun()
