"""Playground: one prompt through the gateway, as a caller would send it; who answered, and why."""

from __future__ import annotations

import streamlit as st

from dashboard import parts, shared
from dashboard.conversation import Exchange, GatewayTroubleError, stream
from dashboard.frame import address, banner_row, page, title
from dashboard.markup import Html, div, link, span
from dashboard.parts import role_tag
from dashboard.times import milliseconds


@page
def playground() -> None:
    """A prompt and its answer."""
    manager, _ = title("Playground", "Through the gateway, like any other caller")
    banner_row(manager)
    with st.form("ask", border=False), st.container(key="card-ask"):
        prompt = st.text_area("Prompt", key="prompt", height=120, placeholder="Why is the sky blue?")
        system = st.text_input("System instructions", key="system", placeholder="None")
        sent = st.form_submit_button("Send", type="primary", icon=":material/send:")
    if not sent:
        parts.show(
            div(
                "sg-card",
                parts.empty(
                    "The answer appears here as it arrives. It is recorded like every other request.", symbol="forum"
                ),
            )
        )
        return
    if not prompt.strip():
        st.warning("Write a prompt first.", icon=":material/edit:")
        return
    _answer(manager, prompt, system)


def _answer(manager: str, prompt: str, system: str) -> None:
    exchange = Exchange()
    place = st.empty()
    text = ""
    place.html(div("sg-card sg-answer", span("sg-note", "Waiting for the first token …")))
    try:
        for piece in stream(shared.config(), manager, prompt, exchange, system=system):
            text += piece
            place.html(div("sg-card sg-answer", text))
    except GatewayTroubleError as error:
        place.html(div("sg-card sg-answer", text) if text else "<span></span>")
        st.error(str(error), icon=":material/error:")
    if exchange.headers:
        parts.show(_facts(exchange))


def _facts(exchange: Exchange) -> Html:
    told = exchange.headers
    request_id = told.get("request-id", "")
    usage = exchange.usage
    return div(
        "sg-card",
        parts.heading(
            "Who answered",
            more=parts.more(address("requests", request=request_id), "Its attempts") if request_id else None,
        ),
        parts.pairs(
            [
                ("Role", role_tag(told.get("role", "none"))),
                ("Model", span("sg-mono", told.get("model", "–"))),
                ("Why the other model", told.get("failover", "").replace("_", " ") or "the active model answered"),
                ("Attempts", told.get("attempts", "–")),
                ("First token", milliseconds(exchange.first_s * 1000 if exchange.first_s is not None else None)),
                ("Took", milliseconds(exchange.total_s * 1000 if exchange.total_s is not None else None)),
                ("Tokens", f"{usage.get('prompt_tokens', '–')} in, {usage.get('completion_tokens', '–')} out"),
                ("Finish", exchange.finish_reason or "–"),
                ("Epoch", told.get("epoch", "–")),
                (
                    "Request",
                    link(address("requests", request=request_id), span("sg-mono", request_id[-12:]), cls="sg-link")
                    if request_id
                    else "–",
                ),
            ]
        ),
    )
