"""The twenty questions of 3 a.m. are answered, each on the page that is named for it, in the middle of an incident."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import words
from history import Moment
from streamlit.testing.v1 import AppTest

QUESTIONS = [
    ("Are we serving users now?", "now", ["Degraded", "answered in 5 min"]),
    ("Which model is active, since when?", "now", ["Serving from ", "secondary</strong>", " min"]),
    ("Why did it switch?", "incident", ["What tripped it", "Threshold crossed", "9 of 14 calls failed"]),
    ("Did a human do it?", "control", ["Audit log", "Automatic", "ana"]),
    ("Is the page still valid?", "now", ["Active alerts", "SecondaryActiveTooLong", "Firing"]),
    ("What exactly fails?", "now", ["Provider errors (5xx)"]),
    ("Our key and quota, or the provider?", "now", ["Wait for the provider"]),
    ("Is primary recovering?", "now", ["Breaker open", "Last probes", "probe"]),
    ("When do we fail back?", "now", ["Back on primary when", "Hold", "Good probes", "Ramp"]),
    ("Can secondary carry the load?", "now", ["Secondary", "p95", "429 share", "/min"]),
    ("What if secondary dies too?", "now", ["No spare"]),
    ("Are we flapping?", "now", ["Last 24 hours", "sg-ribbon", "times"]),
    ("How bad for users, now against an hour ago?", "now", ["1 h ago"]),
    ("What changed just before?", "incident", ["Timeline", "Primary breaker open", "Active model moved"]),
    ("Has it happened before, how did it end?", "incident", ["Similar before", "recovered by itself"]),
    ("Who was notified, did it arrive?", "deliveries", ["chat-room", "Failed for good", "Delivered", "Replay"]),
    ("Can I force a model safely?", "control", ["Pin primary", "Pin secondary", "Force open"]),
    ("Which requests were hurt?", "incident", ["Requests in it", "requests hurt"]),
    (
        "Is this page telling the truth?",
        "now",
        ["Last request", "Last evaluation", "Recorder", "Agreement", "Instances"],
    ),
    ("What do I do and hand over?", "incident", ["Wait for the provider", "Check the provider"]),
]


@pytest.mark.parametrize(("question", "page", "answer"), QUESTIONS, ids=[question for question, _, _ in QUESTIONS])
def test_the_question_is_answered(
    opened: Callable[..., AppTest], stores: dict[Moment, Path], question: str, page: str, answer: list[str]
) -> None:
    where = {"at": str(time.time_ns() // 1_000_000)} if page == "incident" else {}
    said = words(opened(stores[Moment.DURING], "incidents" if page == "incident" else page, **where))
    assert [part for part in answer if part not in said] == []
