"""Sign in: by key, or with the configured identity provider; nothing else is shown before that."""

from __future__ import annotations

from urllib.parse import urlencode, urlsplit

import streamlit as st

from dashboard import look, parts
from dashboard.frame import oidc_configured, page, script
from dashboard.markup import div, icon, tag
from dashboard.wording import Tone


@page
def sign_in() -> None:
    """The only page of somebody who is not signed in."""
    refused = st.query_params.get("refused")
    if oidc_configured():
        script(look.WANTED)
        with st.container(key="oidc"):
            parts.show(tag("h1", "Switchgear"), tag("p", "Sign in to see who serves.", cls="sg-note"))
            if st.button("Sign in", type="primary", icon=":material/login:", width="stretch"):
                st.login()
        return
    parts.show(
        div(
            "sg-signin",
            tag("h1", "Switchgear"),
            tag("p", "Sign in with an operator's or a viewer's key.", cls="sg-note"),
            div(f"sg-consequence sg-{Tone.BAD}", icon("block"), tag("span", "Nobody has this key."))
            if refused
            else None,
            tag(
                "form",
                tag(
                    "label",
                    "Key",
                    tag("input", type="password", name="key", autocomplete="current-password", required=True),
                ),
                tag("button", "Sign in", type="submit"),
                method="post",
                action=f"/sign-in?{urlencode({'then': _wanted()})}",
            ),
        )
    )


def _wanted() -> str:
    """The address that was asked for, without its host: where signing in leads."""
    path = urlsplit(st.context.url or "/").path or "/"
    kept = {name: value for name, value in st.query_params.to_dict().items() if name != "refused"}
    return path + (f"?{urlencode(kept)}" if kept else "")
