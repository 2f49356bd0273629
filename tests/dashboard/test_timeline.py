"""The merged timeline: what only repeats is one line, and everything else is told."""

from __future__ import annotations

from typing import Any

from dashboard.happenings import Happening
from dashboard.timeline import again, quieten
from engine.queries import EventKind


def attempt(second: int, outbox: str, what: str = "failed") -> Happening:
    evidence = {"outbox_id": outbox, "n": second}
    return Happening(second * 1000, EventKind.DELIVERY, f"{outbox}{second}", "chat", what, who="ops", evidence=evidence)


def breaker(second: int, before: str, after: str, **more: Any) -> Happening:
    told = {"role": "primary", "before": before, "after": after, "who": "a"} | more
    return Happening(second * 1000, EventKind.BREAKER, f"{second}", "chat", after, **told)


def told(*events: Happening) -> list[tuple[str, int]]:
    return [(one.id, times) for one, times in quieten(events)]


def test_tries_of_a_notification_that_fail_are_one_line_and_the_one_that_arrives_another() -> None:
    tries = [attempt(1, "x"), attempt(2, "y"), attempt(3, "x"), attempt(4, "x"), attempt(5, "x", "delivered")]
    assert told(*tries) == [("x1", 3), ("y2", 1), ("x5", 1)]


def test_probes_that_fail_are_one_line_whatever_is_told_between_them() -> None:
    probes = [breaker(at, "half_open", "open") for at in (20, 40, 60)]
    story = [breaker(0, "closed", "open"), probes[0], attempt(30, "x"), probes[1], breaker(59, "open", "half_open")]
    assert told(*story, probes[2]) == [("0", 1), ("20", 3), ("x30", 1)]


def test_probes_after_another_trip_are_other_ones() -> None:
    story = [breaker(20, "half_open", "open"), breaker(40, "half_open", "closed"), breaker(50, "closed", "open")]
    assert told(*story, breaker(70, "half_open", "open")) == [("20", 1), ("40", 1), ("50", 1), ("70", 1)]


def test_how_often_it_was_is_said_in_words() -> None:
    assert [again(attempt(1, "x"), times) for times in (1, 2, 3)] == [
        "",
        " (and 1 more try failed)",
        " (and 2 more tries failed)",
    ]
    assert again(breaker(20, "half_open", "open"), 4) == " (and 3 more probes failed)"
