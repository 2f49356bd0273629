"""What an incident is named by, and what it shows to have failed: the truth of everything that is in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dashboard import wording
from dashboard.casefile import CaseFile, advices_of, read_case, read_incidents, what_failed
from dashboard.export import markdown
from dashboard.timeline import sentence
from dashboard.times import Clockface
from engine.core.events import FailoverRecord, OverrideRecord, Record, Scope
from engine.ids import new_id
from engine.queries import EventKind
from tests.alerts.world import START_MS, World, breaker, move, open_recorder, request

MINUTE = 60_000


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(open_recorder(tmp_path))
    yield world
    world.recorder.close()


def outage(failed: int) -> list[Record]:
    """Two minutes in which so many calls failed and the primary was left."""
    calls = [
        request(START_MS + n, outcome="error", status_code=503, attempts=[("primary", "server_error")])
        for n in range(failed)
    ]
    return [
        *calls,
        breaker(START_MS + 500, "open"),
        move(START_MS + 600, 2),
        breaker(START_MS + 2 * MINUTE, "closed", "open"),
        move(START_MS + 2 * MINUTE, 3, to="primary", cause="failback"),
    ]


def storm(shed: int, *, limited: int = 0, start_ms: int = START_MS + MINUTE) -> list[Record]:
    """Calls that were refused, some after the provider had said 429."""
    return [
        request(
            start_ms + n,
            outcome="shed",
            status_code=429,
            attempts=[("primary", "rate_limited")] if n < limited else [],
        )
        for n in range(shed)
    ]


def spill(ts_ms: int) -> Record:
    """A request that went over to the secondary, the primary's quota being used up."""
    return FailoverRecord(
        new_id(), ts_ms, "chat", "i", Scope.REQUEST, "primary", "secondary", "quota_exhausted", None, 1
    )


def fired(world: World, rule: str, at_ms: int, after: str = "firing", before: str = "inactive") -> None:
    world.execute(
        "INSERT INTO alert_transitions (id, ts_ms, rule, fingerprint, manager, labels, from_state, to_state, value,"
        " annotations) VALUES (?, ?, ?, ?, 'chat', '{}', ?, ?, 0.5, ?)",
        [new_id(), at_ms, rule, rule, before, after, f'{{"summary": "it is {rule}"}}'],
    )


def case(world: World) -> CaseFile:
    now_ms = START_MS + 60 * MINUTE
    with world.recorder.store.reader() as connection:
        (only,) = read_incidents(connection, "chat", now_ms)
        found = read_case(connection, "chat", only.id, now_ms)
    assert found is not None
    return found


def name(found: CaseFile) -> str:
    return wording.named(advices_of(found))


def test_an_outage_with_a_storm_in_it_is_named_by_both_and_shows_what_was_shed(world: World) -> None:
    world.record(*outage(40), *storm(30, limited=12))
    found = case(world)
    assert name(found) == "Provider errors (5xx) and rate limited (429)"
    assert what_failed(found.harm) == [
        ("Provider errors (5xx)", 40), ("Rate limited (429)", 12), ("Shed to keep within a limit", 30),
    ]  # fmt: skip
    text = markdown(found, Clockface(START_MS + 60 * MINUTE))
    assert "| Who can fix it | Wait for the provider; Billing or access |" in text
    assert "| Shed to keep within a limit | 30 |" in text


def test_calls_that_were_shed_without_an_attempt_count_as_rate_limited(world: World) -> None:
    world.record(*outage(20), *storm(60))
    assert name(case(world)) == "Rate limited (429) and provider errors (5xx)"


def test_calls_that_went_over_without_an_attempt_name_what_kept_them_away(world: World) -> None:
    world.record(*(request(START_MS + n) for n in range(40)))
    world.record(
        *(
            request(START_MS + n, role="secondary", failover_cause="quota_exhausted", attempts=[("secondary", "ok")])
            for n in range(20)
        ),
        *(spill(START_MS + n) for n in range(20)),
    )
    fired(world, "SecondaryServing", START_MS + 500)
    fired(world, "SecondaryServing", START_MS + MINUTE, "resolved", "firing")
    found = case(world)
    assert name(found) == "Daily quota used up"
    assert what_failed(found.harm) == [("To the other model: daily quota used up", 20)]


def test_what_opened_a_breaker_is_named_beside_a_storm_however_few_it_were(world: World) -> None:
    world.record(*outage(6), *storm(80))
    assert name(case(world)) == "Rate limited (429) and provider errors (5xx)"


def test_a_few_others_are_not_named(world: World) -> None:
    world.record(*outage(40), *storm(5))
    assert name(case(world)) == "Provider errors (5xx)"


def test_an_alert_alone_is_not_explained_by_the_failures_of_every_day(world: World) -> None:
    world.record(*(request(START_MS + n) for n in range(400)), *outage(2)[:2])
    fired(world, "LatencyHigh", START_MS + 500)
    fired(world, "LatencyHigh", START_MS + MINUTE, "resolved", "firing")
    assert name(case(world)) == "LatencyHigh"


def test_an_alert_alone_is_named_by_what_failed_where_much_did(world: World) -> None:
    world.record(*(request(START_MS + n) for n in range(40)), *outage(9)[:9])
    fired(world, "ErrorRateHigh", START_MS + 500)
    fired(world, "ErrorRateHigh", START_MS + MINUTE, "resolved", "firing")
    assert name(case(world)) == "Provider errors (5xx)"


def test_alerts_are_told_once_in_the_order_of_their_first_firing(world: World) -> None:
    world.record(*outage(40))
    for rule, minute in (("B", 0.2), ("A", 0.4), ("B", 0.9)):
        fired(world, rule, START_MS + round(minute * MINUTE))
        fired(world, rule, START_MS + round(minute * MINUTE) + 2, "resolved", "firing")
    found = case(world)
    assert [(one.who, one.reason) for one in found.alerts] == [("B", "it is B"), ("A", "it is A")]
    assert found.alerts[0].ts_ms == START_MS + round(0.2 * MINUTE)


def test_an_alert_about_what_an_operator_did_names_them_and_tells_their_act(world: World) -> None:
    pinned = OverrideRecord(new_id(), START_MS, "chat", "set", "secondary", False, "maintenance", "ana", None, 2)
    world.record(pinned, move(START_MS + 1, 2, cause="override"))
    fired(world, "SecondaryActiveTooLong", START_MS + MINUTE, "pending")
    fired(world, "SecondaryActiveTooLong", START_MS + 16 * MINUTE, "firing", "pending")
    fired(world, "SecondaryActiveTooLong", START_MS + 30 * MINUTE, "resolved", "firing")
    found = case(world)
    assert wording.named(advices_of(found)) == "Operator"
    assert sentence(found.timeline[0]) == "ana pinned secondary: “maintenance”"
    assert found.evidence is not None
    assert found.evidence.kind is EventKind.ALERT


def test_notifications_of_other_alerts_are_not_told_in_it(world: World) -> None:
    world.record(*outage(40))
    fired(world, "Mine", START_MS + 700)
    fired(world, "Mine", START_MS + MINUTE, "resolved", "firing")
    for n, labels in enumerate(
        ('alertname="Mine", manager="chat"', 'alertname="Mine", manager="other"', 'alertname="Watchdog"')
    ):
        group = f"{{}}:{{{labels}}}"
        world.execute(
            "INSERT INTO outbox (id, created_ms, receiver, kind, ordering_key, dedupe_key, body, state,"
            " next_attempt_ms) VALUES (?, ?, 'ops', 'webhook', ?, ?, '{}', 'delivered', 0)",
            [f"o{n}", START_MS, group, f"o{n}"],
        )
        world.execute("INSERT INTO deliveries VALUES (?, 1, ?, 204, NULL, 5.0)", [f"o{n}", START_MS + 800 + n])
    found = case(world)
    told = [sentence(one) for one in found.timeline if one.kind is EventKind.DELIVERY]
    assert not found.untold
    assert told == ["Notification about Mine to ops delivered (204)"]


def test_alerts_of_which_nobody_was_told_are_said_to_be(world: World) -> None:
    world.record(*outage(40))
    assert not case(world).untold, "no alert fired"
    fired(world, "Mine", START_MS + 700)
    fired(world, "Mine", START_MS + MINUTE, "resolved", "firing")
    found = case(world)
    assert found.untold
    assert "| Notifications | none on record here |" in markdown(found, Clockface(START_MS + 60 * MINUTE))
    assert not replace(found, end_ms=START_MS + MINUTE).untold, "one may be on its way"
