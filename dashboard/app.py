"""The dashboard's entry: its pages and their addresses."""

from __future__ import annotations

import streamlit as st

from dashboard.look import LOGO
from dashboard.page_incidents import incidents
from dashboard.page_now import now
from dashboard.page_requests import requests

st.set_page_config(page_title="Switchgear", page_icon=str(LOGO), layout="wide", initial_sidebar_state="auto")
st.logo(str(LOGO), size="medium")
st.navigation(
    [
        st.Page(now, title="Now", icon=":material/speed:", url_path="now", default=True),
        st.Page(incidents, title="Incidents", icon=":material/emergency_home:", url_path="incidents"),
        st.Page(requests, title="Requests", icon=":material/list_alt:", url_path="requests"),
    ]
).run()
