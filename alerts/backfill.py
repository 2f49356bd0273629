"""Alerts of a past that no evaluator has watched: what rules would have said then is put on record as if one had.

Made for a history that was written in one go, such as a demo's. Rules are judged by the tick's own `judge`, over what
`alerts.past` answers; an evaluator that starts afterwards goes on from the states it finds. Nobody is told anything:
what was fired and resolved in the past is no news, and what still fires is told by the evaluator that goes on.

Rules about what only the present knows (`past.UNRECORDED`) have no past and are left out.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

from alerts import queries
from alerts.expression import LevelTest, Value
from alerts.judgement import Judged, Transition, judge
from alerts.memory import Remembered
from alerts.past import Grid, Past, unrecorded
from alerts.rules import Rule
from alerts.tick import COMMIT_TIMEOUT_S, EVALUATION_MARK
from alerts.vocabulary import Query, Scope
from engine.ids import IdSource
from engine.recorder import Recorder
from engine.sqlite import Connection

STEP_MS = 30_000
"""Between two looks: half as often as an evaluator's, for half the time; no shipped `for` is shorter than a minute."""

OWNER = "backfill"


def backfill(
    recorder: Recorder,
    rules: Sequence[Rule],
    managers: Sequence[str],
    from_ms: int,
    to_ms: int,
    *,
    progress: Callable[[float], None] = lambda _: None,
) -> tuple[Transition, ...]:
    """Judge rules over a stretch of the past, and record their transitions and the states they end in.

    Args:
        recorder: Of a store on which no rules were evaluated yet; what was handed to it before is committed first.
        rules: The rules.
        managers: Whom they are judged for.
        from_ms: Where to begin; nothing is on record before.
        to_ms: Where to end.
        progress: Is told the share that is done, 0..1.

    Returns:
        What was recorded, in the order of time.
    """
    known = [rule for rule in rules if not unrecorded(rule.expression.queries)]
    grid = Grid(from_ms // STEP_MS * STEP_MS, to_ms // STEP_MS * STEP_MS, STEP_MS)
    recorder.execute(lambda _: None).result(COMMIT_TIMEOUT_S)
    memory: Mapping[str, Remembered] = {}
    transitions: list[Transition] = []
    with recorder.store.reader() as connection:
        past = _Pasts(connection, known, managers, grid)
        moments = grid.moments()
        for n, now_ms in enumerate(moments, 1):
            past.move(now_ms)
            judged = judge(known, managers, memory, past, now_ms)
            memory = judged.memory
            transitions += judged.transitions
            progress(n / len(moments))
    _record(recorder, Judged(memory, tuple(transitions)), to_ms)
    return tuple(transitions)


class _Pasts:
    """The past of several managers and of the store; see `alerts.observations.Observations`."""

    def __init__(self, connection: Connection, rules: Sequence[Rule], managers: Sequence[str], grid: Grid) -> None:
        self._pasts = {
            manager: Past(connection, _asked(rules, Scope.MANAGER if manager else Scope.STORE), manager, grid)
            for manager in (None, *managers)
        }

    def move(self, now_ms: int) -> None:
        for past in self._pasts.values():
            past.move(now_ms)

    def ask(self, manager: str | None, query: Query) -> Value:
        return self._pasts[manager].ask(manager, query)

    def since(self, manager: str | None, test: LevelTest) -> int | None:
        return self._pasts[manager].since(manager, test)


def _asked(rules: Sequence[Rule], scope: Scope) -> frozenset[Query]:
    return frozenset(query for rule in rules if rule.scope is scope for query in rule.expression.queries)


def _record(recorder: Recorder, judged: Judged, to_ms: int) -> None:
    """Write it in one transaction; ids hold the time of what they name, as those of a tick do."""
    now_ms = 0
    ids = IdSource(lambda: now_ms, random.SystemRandom().getrandbits)

    def write(connection: Connection) -> None:
        nonlocal now_ms
        for transition in judged.transitions:
            now_ms = transition.ts_ms
            queries.add_transition(connection, transition.row(ids()))
        for one in judged.memory.values():
            queries.save_alert(connection, one.row())
        queries.set_mark(connection, EVALUATION_MARK, to_ms, OWNER)

    recorder.execute(write, durable=True).result(COMMIT_TIMEOUT_S)
