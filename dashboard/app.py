"""The dashboard's entry: its pages and their addresses."""

from __future__ import annotations

import streamlit as st

from dashboard.look import LOGO
from dashboard.page_now import now

st.set_page_config(page_title="Switchgear", page_icon=str(LOGO), layout="wide", initial_sidebar_state="auto")
st.logo(str(LOGO), size="medium")
st.navigation(
    [
        st.Page(now, title="Now", icon=":material/speed:", url_path="now", default=True),
    ]
).run()
