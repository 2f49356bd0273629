"""Playground: one prompt through the gateway, as callers send it or to each model alone; who answered, and why."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from dashboard import acts, parts, shared
from dashboard.conversation import Exchange, Prompt
from dashboard.frame import address, as_shown, banner_row, may_act, named, page, require_actor, title
from dashboard.markup import Child, Html, div, icon, span
from dashboard.parts import badge, role_tag
from dashboard.reading import ROLES
from dashboard.times import dollars, milliseconds
from dashboard.wording import CAUSES, Face, Tone
from engine.core.messages import Role, Usage
from engine.recording import cost_of

CALLER, BOTH = "caller", "both"
MODES: Final = {CALLER: "As a caller", BOTH: "Both models, side by side"}
NOTES: Final = {
    CALLER: "The gateway decides who answers. Recorded like every other request.",
    BOTH: "Each model is asked alone and once. Recorded as tests: no failover, and no breaker or agreement moves.",
}
REDRAW_S: Final = 0.08
"""Seconds between two drawings of an answer that grows; more often than the eye can follow is for nothing."""


@page
def playground() -> None:
    """A prompt and its answers."""
    manager, _ = title("Playground", "A prompt of your own, through the gateway")
    banner_row(manager)
    may_ask = may_act()
    with st.container(key="card-ask"):
        mode = (
            st.segmented_control("Ask", label_visibility="collapsed", required=True, **named("ask", MODES, CALLER))
            or CALLER
        )
        with st.form("prompt-form", border=False):
            text = st.text_area("Prompt", key="prompt", height=110, placeholder="Why is the sky blue?")
            system = st.text_input("System instructions", key="system", placeholder="None")
            with st.container(horizontal=True, vertical_alignment="center"):
                sent = st.form_submit_button(
                    "Send", type="primary", icon=":material/send:", disabled=not may_ask, on_click=as_shown
                )
                parts.show(
                    span("sg-note", NOTES[mode] if may_ask else "You may look and not act: a prompt costs money.")
                )
    if sent and not text.strip():
        st.warning("Write a prompt first.", icon=":material/edit:")
    elif sent:
        _ask(Prompt(manager, text, system), mode)
    elif (kept := st.session_state.get("answers")) is not None and kept[0] == manager:
        _places(manager, kept[1])
    else:
        parts.show(parts.empty_card("The answer appears here as it arrives.", symbol="forum"))


def _ask(prompt: Prompt, mode: str) -> None:
    exchanges = [Exchange(only=role) for role in ROLES] if mode == BOTH else [Exchange()]
    places = _places(prompt.manager, exchanges)
    drawn = 0.0
    for _ in acts.converse(require_actor(), prompt, exchanges):
        if time.monotonic() - drawn >= REDRAW_S:
            _draw(prompt.manager, exchanges, places)
            drawn = time.monotonic()
    _draw(prompt.manager, exchanges, places)
    st.session_state["answers"] = (prompt.manager, exchanges)


def _places(manager: str, exchanges: Sequence[Exchange]) -> list[DeltaGenerator]:
    """Where answers stand, beside each other where there are two."""
    places = [column.empty() for column in st.columns(len(exchanges), gap="small")]
    _draw(manager, exchanges, places)
    return places


def _draw(manager: str, exchanges: Sequence[Exchange], places: Sequence[DeltaGenerator]) -> None:
    for exchange, place in zip(exchanges, places, strict=True):
        place.html(_card(manager, exchange))


def _card(manager: str, exchange: Exchange) -> Html:
    told = exchange.headers
    answered = told.get("role") in ROLES
    role = exchange.only or (told["role"] if answered else "")
    model = told["model"] if answered else _model(manager, exchange.only)
    request_id = told.get("request-id", "")
    return div(
        f"sg-card sg-answer-card sg-model{f' sg-model-{role} sg-model-active' if role else ''}",
        div(
            "sg-model-top",
            div(
                "sg-model-name",
                role_tag(role) if role else span("sg-note", "The gateway decides"),
                span("sg-mono", model),
            ),
            badge(_state(exchange)),
        ),
        div("sg-answer", exchange.text) if exchange.text else None,
        div(f"sg-consequence sg-{Tone.BAD}", icon("error"), span("", exchange.trouble)) if exchange.trouble else None,
        parts.pairs(_facts(manager, exchange)) if exchange.total_s is not None and told else None,
        parts.more(address("requests", request=request_id), "Its attempts") if request_id else None,
    )


def _model(manager: str, role: str | None) -> str:
    return shared.config().manager_policy(manager).model(Role(role)).name if role else ""


def _state(exchange: Exchange) -> Face:
    if exchange.trouble:
        return Face("No whole answer" if exchange.text else "No answer", "error", Tone.BAD)
    if exchange.total_s is not None:
        return Face("Answered", "check_circle", Tone.OK)
    return Face("Answering", "more_horiz", Tone.INFO) if exchange.text else Face("Waiting", "hourglass_top", Tone.MUTED)


def _facts(manager: str, exchange: Exchange) -> list[tuple[str, Child]]:
    told, usage = exchange.headers, exchange.usage
    facts: list[tuple[str, Child]] = [
        ("First token", milliseconds(None if exchange.first_s is None else exchange.first_s * 1000)),
        ("Took", milliseconds(None if exchange.total_s is None else exchange.total_s * 1000)),
        ("Tokens", f"{usage['prompt_tokens']:,} in, {usage['completion_tokens']:,} out" if usage else "–"),
        ("Cost", dollars(_cost(manager, exchange))),
        ("Finish", exchange.finish_reason or "–"),
    ]
    if exchange.only is None:
        cause = told.get("failover", "")
        why = CAUSES[cause].label if cause in CAUSES else cause.replace("_", " ") or "It is the active model"
        facts += [("Why this model", why), ("Attempts", told.get("attempts", "–"))]
    return facts


def _cost(manager: str, exchange: Exchange) -> float | None:
    """What one attempt cost; several may have gone to two models, which only the record tells apart."""
    told, usage = exchange.headers, exchange.usage
    if told.get("role") not in ROLES or told.get("attempts") != "1" or not usage:
        return None
    tokens = Usage(usage.get("prompt_tokens"), usage.get("completion_tokens"))
    return cost_of(shared.config().manager_policy(manager).model(Role(told["role"])), tokens)
