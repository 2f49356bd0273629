"""Incidents are derived from events alone: when they begin, what belongs to them, and when they are over."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.incidents import QUIET_MS, SILENT_MS, Ending, at, derive, similar
from engine.queries.events import Event, EventKind

START = 1_790_000_000_000


def event(kind: EventKind, seconds: float, **detail: Any) -> Event:
    ts_ms = START + int(seconds * 1000)
    return Event(kind, f"{ts_ms}-{kind}-{sorted(detail.items())}", ts_ms, "chat", detail)


def breaker(
    seconds: float, state: str, *, role: str = "primary", instance: str = "a", ids: tuple[str, ...] = ()
) -> Event:
    return event(
        EventKind.BREAKER,
        seconds,
        role=role,
        instance=instance,
        to_state=state,
        from_state="",
        reason="failure_rate",
        evidence={"request_ids": ids},
    )


def move(seconds: float, to: str, cause: str = "quorum") -> Event:
    return event(EventKind.FAILOVER, seconds, from_role="", to_role=to, cause=cause, epoch=1, instance="a", evidence={})


def alert(seconds: float, state: str, rule: str = "Slow") -> Event:
    return event(
        EventKind.ALERT, seconds, rule=rule, fingerprint=rule, from_state="", to_state=state, value=1.0, labels={}
    )


OUTAGE = [
    breaker(0, "open"),
    move(1, "secondary"),
    breaker(20, "half_open"),
    breaker(21, "open"),
    breaker(50, "half_open"),
    breaker(51, "closed"),
    move(120, "primary", "failback"),
]
END = START + 10_000_000


def test_an_outage_is_one_incident_from_the_breaker_to_the_failback() -> None:
    (found,) = derive(OUTAGE, END)
    assert (found.start_ms, found.end_ms) == (START, START + 120_000)
    assert (found.moves, found.trips, found.cause, found.ending) == (1, 1, "quorum", Ending.RECOVERED)


def test_it_begins_with_the_first_failure_named_as_evidence() -> None:
    request = "01a0c4b5-e400-7000-8000-000000000000"
    early = int(request[:8] + request[9:13], 16)
    opened = Event(EventKind.BREAKER, "x", early + 5_000, "chat", breaker(0, "open", ids=(request,)).detail)
    (found,) = derive([opened], early + 6_000)
    assert found.start_ms == early


def test_it_goes_on_while_the_secondary_serves() -> None:
    (found,) = derive(OUTAGE[:-1], START + 60_000)
    assert found.end_ms is None
    assert found.ending is Ending.ONGOING
    assert found.duration_ms(START + 60_000) == 60_000


def test_flapping_is_told_once_and_calm_between_makes_two() -> None:
    again = [Event(one.kind, one.id + "b", one.ts_ms + 150_000, one.manager, one.detail) for one in OUTAGE]
    later = [Event(one.kind, one.id + "c", one.ts_ms + 121_000 + QUIET_MS, one.manager, one.detail) for one in OUTAGE]
    assert len(derive([*OUTAGE, *again], END)) == 1
    assert len(derive([*OUTAGE, *later], END)) == 2


def test_an_alert_that_fires_begins_where_it_became_pending() -> None:
    told = [alert(0, "pending"), alert(300, "firing"), alert(900, "resolved")]
    (found,) = derive(told, END)
    assert found.events == tuple(told), "its timeline begins where it does"
    assert (found.start_ms, found.end_ms) == (START, START + 900_000)
    assert found.ending is Ending.ALERT_RESOLVED
    assert found.alerts == ("Slow",)


def test_an_alert_that_only_was_pending_is_no_incident() -> None:
    assert derive([alert(0, "pending"), alert(30, "inactive")], END) == []


def test_what_an_operator_does_on_purpose_begins_none() -> None:
    forced = breaker(0, "forced_open")
    assert derive([forced, move(5, "secondary", "override"), move(60, "primary", "override")], END) == []


def pin(seconds: float, action: str, role: str | None = "secondary") -> Event:
    return event(EventKind.OVERRIDE, seconds, action=action, role=role, actor="ana", reason="maintenance")


def test_a_pin_that_holds_when_one_begins_is_told_in_it_and_changes_neither_begin_nor_id() -> None:
    act, moved = pin(0, "set"), move(0.1, "secondary", "override")
    fired = [alert(20, "pending"), alert(920, "firing"), alert(1800, "resolved")]
    (alone,), (found,) = derive(fired, END), derive([act, moved, *fired], END)
    assert found.events == (act, moved, *fired[:-1], fired[-1])
    assert (found.id, found.start_ms, found.cause, found.moves) == (alone.id, alone.start_ms, alone.cause, 0)


@pytest.mark.parametrize("ended", ["clear", "expired"])
def test_a_pin_that_is_over_when_one_begins_is_not_told_in_it(ended: str) -> None:
    fired = [alert(920, "firing"), alert(1800, "resolved")]
    before = [
        pin(0, "set"),
        move(0.1, "secondary", "override"),
        pin(300, ended, None),
        move(400, "primary", "failback"),
    ]
    (found,) = derive([*before, *fired], END)
    assert found.events == tuple(fired)


def test_an_operator_can_end_one() -> None:
    (found,) = derive([*OUTAGE[:2], breaker(5, "closed"), move(30, "primary", "override")], END)
    assert found.ending is Ending.OPERATOR


def test_a_breaker_of_a_process_that_is_gone_does_not_keep_it_open() -> None:
    (found,) = derive(
        [breaker(0, "open"), breaker(0.1, "open", instance="b"), breaker(30, "closed", instance="b")],
        START + SILENT_MS + 60_000,
    )
    assert found.end_ms == START + 30_000


def test_a_moment_leads_to_its_incident() -> None:
    found = derive(OUTAGE, END)
    assert at(found, START + 60_000) is found[0]
    assert at(found, START - 30_000) is found[0]
    assert at(found, START - 4_000_000) is None


def test_earlier_ones_of_the_same_cause_are_similar() -> None:
    later = [Event(one.kind, one.id + "c", one.ts_ms + 5_000_000, one.manager, one.detail) for one in OUTAGE]
    newest, oldest = derive([*OUTAGE, *later], END)
    assert similar(newest, [newest, oldest]) == [oldest]
    assert similar(oldest, [newest, oldest]) == []


@given(
    st.lists(
        st.tuples(
            st.integers(0, 4000),
            st.sampled_from(["open", "closed", "half_open", "secondary", "primary", "firing", "resolved"]),
        ),
        max_size=40,
    )
)
def test_incidents_do_not_overlap_and_begin_before_they_end(steps: list[tuple[int, str]]) -> None:
    events = []
    for number, (seconds, word) in enumerate(steps):
        when = seconds + number / 1000
        if word in ("primary", "secondary"):
            events.append(move(when, word, "failback" if word == "primary" else "quorum"))
        elif word in ("firing", "resolved"):
            events.append(alert(when, word))
        else:
            events.append(breaker(when, word))
    found = list(reversed(derive(events, END)))
    for one in found:
        assert one.end_ms is None or one.start_ms <= one.end_ms
        assert list(one.events) == sorted(one.events, key=lambda event: (event.ts_ms, event.id))
    for before, after in pairwise(found):
        assert before.end_ms is not None
        assert before.end_ms <= after.start_ms
