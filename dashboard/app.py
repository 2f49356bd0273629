"""The dashboard's entry: who comes in, its pages and their addresses."""

from __future__ import annotations

import streamlit as st

from dashboard import frame
from dashboard.look import LOGO
from dashboard.page_alert_rules import alert_rules
from dashboard.page_control import control
from dashboard.page_deliveries import deliveries
from dashboard.page_incidents import incidents
from dashboard.page_now import now
from dashboard.page_playground import playground
from dashboard.page_requests import requests
from dashboard.page_sign_in import sign_in
from engine.core.errors import SwitchgearError

st.set_page_config(page_title="Switchgear", page_icon=str(LOGO), layout="wide", initial_sidebar_state="auto")

try:
    visitor = frame.actor()
except SwitchgearError as error:
    frame.styles()
    frame.trouble(error)
    st.stop()

if visitor is None:  # at any address, so that a link in a notification leads there once its reader has signed in
    doors = [st.Page(sign_in, title="Sign in", url_path=name, default=name == "now") for name in frame.PAGES]
    st.navigation(doors, position="hidden").run()
else:
    st.logo(str(LOGO), size="large")
    chosen = st.navigation(
        [
            st.Page(now, title="Now", icon=":material/speed:", url_path="now", default=True),
            st.Page(incidents, title="Incidents", icon=":material/emergency_home:", url_path="incidents"),
            st.Page(requests, title="Requests", icon=":material/list_alt:", url_path="requests"),
            st.Page(alert_rules, title="Alerts", icon=":material/notifications:", url_path="alerts"),
            st.Page(deliveries, title="Deliveries", icon=":material/send:", url_path="deliveries"),
            st.Page(control, title="Control", icon=":material/tune:", url_path="control"),
            st.Page(playground, title="Playground", icon=":material/forum:", url_path="playground"),
        ]
    )
    frame.footer(visitor)
    chosen.run()
