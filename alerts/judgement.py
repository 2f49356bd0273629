"""What rules say at one moment, as pure functions: each is tried for each manager, and what is remembered moves on.

Guarantees: a rule that fails keeps its state, says so, and stops no other; a rule without data does what its `no_data`
says. The store's tick, unit tests of rules and previews all judge here, so that they cannot differ.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from alerts.evaluator import Alert, Change, Observation, State, Timing, evaluate
from alerts.expression import EvaluationError, NoValue
from alerts.memory import Remembered
from alerts.observations import Observations
from alerts.rules import RULE_FAILING, NoData, Rule
from alerts.template import Facts, expand
from alerts.vocabulary import Scope

log = logging.getLogger(__name__)

ERRORS_IN_A_ROW = 3


@dataclass(frozen=True, slots=True)
class Transition:
    """One change of one alert."""

    alert: Remembered
    change: Change
    ts_ms: int

    def row(self, identifier: str) -> tuple[object, ...]:
        """As `queries.add_transition` takes it."""
        one = self.alert
        return (
            identifier,
            self.ts_ms,
            one.rule,
            one.fingerprint,
            one.manager,
            json.dumps(dict(one.labels), sort_keys=True),
            self.change.before.value,
            self.change.after.value,
            one.alert.value,
            json.dumps(dict(one.annotations)),
        )


@dataclass(frozen=True, slots=True)
class Judged:
    """What all rules say: the memory after it and the transitions on the way."""

    memory: Mapping[str, Remembered]
    transitions: tuple[Transition, ...] = ()


def judge(
    rules: Sequence[Rule],
    managers: Sequence[str],
    memory: Mapping[str, Remembered],
    seen: Observations,
    now_ms: int,
    lost: Callable[[str], bool] = lambda _: False,
) -> Judged:
    """Evaluate every rule for every manager; pure.

    Args:
        rules: The rules in force.
        managers: Whom they are evaluated for.
        memory: What is remembered, by fingerprint.
        seen: Answers what the rules ask.
        now_ms: The time.
        lost: Whether a rule of a name is not known to be gone, although it is not among the rules.
    """
    court = _Court(memory, seen, now_ms, Counter(rule.alert for rule in rules))
    for rule in rules:
        for manager in managers if rule.scope is Scope.MANAGER else (None,):
            court.try_rule(rule, manager)
    court.try_failing()
    court.dismiss_unknown(lost)
    return court.verdict()


def observe(rule: Rule, manager: str | None, seen: Observations) -> Observation | None:
    """What one rule finds.

    Args:
        rule: The rule.
        manager: For whom, `None` for the store.
        seen: Answers what it asks.

    Returns:
        What was found; `None` to change nothing.

    Raises:
        EvaluationError: It failed.
    """
    try:
        met, value = rule.expression.run(lambda query: seen.ask(manager, query))
    except NoValue:
        if rule.no_data is NoData.KEEP:
            return None
        return Observation(rule.no_data is NoData.ALERTING)
    level = rule.expression.level
    return Observation(met, value, seen.since(manager, level) if met and level else None)


class _Court:
    """The work of `judge`."""

    def __init__(
        self, memory: Mapping[str, Remembered], seen: Observations, now_ms: int, names: Mapping[str, int]
    ) -> None:
        self._memory = dict(memory)
        self._seen = seen
        self._now_ms = now_ms
        self._visited: set[str] = set()
        self._transitions: list[Transition] = []
        self._starts: dict[tuple[str, str | None], int] = {}
        for one in memory.values():
            if one.alert.met and names.get(one.rule) == 1:
                self._starts.setdefault((one.rule, one.manager), one.alert.active_ms)

    def try_rule(self, rule: Rule, manager: str | None) -> None:
        """One evaluation of one rule."""
        labels = rule.labels_for(manager)
        known = self._known(rule.alert, manager, labels)
        if known.fleet is not rule.fleet:
            known = replace(known, fleet=rule.fleet)
        try:
            observation = observe(rule, manager, self._seen)
        except EvaluationError as error:
            if not known.errors:
                log.warning("rule %s fails and keeps its state: %s", rule.alert, error)
            self._keep(replace(known, errors=known.errors + 1, error=str(error)))
            return
        if known.errors:
            known = replace(known, errors=0, error="")
        if observation is None:
            self._keep(known)
            return
        self._evaluate(known, Timing(rule.hold, rule.keep), observation, rule.annotations)

    def try_failing(self) -> None:
        """Rules that failed several times in a row are an alert themselves, told by whoever tells what they find."""
        raised = [one for one in self._memory.values() if one.rule == RULE_FAILING]
        known_failing = {(one.labels.get("rule"), one.manager) for one in raised}
        for one in list(self._memory.values()):
            if one.rule == RULE_FAILING or not (one.errors or (one.rule, one.manager) in known_failing):
                continue
            labels = {"alertname": RULE_FAILING, "severity": "warning", "rule": one.rule}
            if one.manager:
                labels["manager"] = one.manager
            if "host" in one.labels:
                labels["host"] = one.labels["host"]
            known = replace(self._known(RULE_FAILING, one.manager, labels), fleet=one.fleet)
            if one.errors >= ERRORS_IN_A_ROW or known.alert.state is not State.INACTIVE:
                met = one.errors >= ERRORS_IN_A_ROW
                texts = {"summary": f"rule {one.rule} cannot be evaluated: {one.error}"} if met else known.annotations
                self._evaluate(known, Timing(), Observation(met), texts)

    def dismiss_unknown(self, lost: Callable[[str], bool]) -> None:
        """Alerts whose rule is gone are over; those of one that cannot be read stay as they are."""
        for one in list(self._memory.values()):
            if one.fingerprint not in self._visited and not lost(one.rule):
                self._evaluate(replace(one, errors=0), Timing(), Observation(met=False), one.annotations)

    def verdict(self) -> Judged:
        """Everything that is still worth remembering."""
        kept = {mark: one for mark, one in self._memory.items() if not one.forgettable}
        return Judged(kept, tuple(self._transitions))

    def _known(self, rule: str, manager: str | None, labels: Mapping[str, str]) -> Remembered:
        fresh = Remembered(rule, manager, labels)
        known = self._memory.get(fresh.fingerprint)
        if known is not None:
            return known
        # An edited label makes another alert, but what has lasted for a while has still lasted for that while.
        started = self._starts.get((rule, manager))
        return fresh if started is None else replace(fresh, alert=Alert(State.PENDING, started))

    def _evaluate(self, known: Remembered, timing: Timing, seen: Observation, annotations: Mapping[str, str]) -> None:
        alert, change = evaluate(timing, known.alert, seen, self._now_ms)
        if seen.met and alert.met:
            facts = Facts(known.labels, alert.value, alert.active_ms, self._now_ms)
            known = replace(known, annotations={name: expand(text, facts) for name, text in annotations.items()})
        after = known if alert == known.alert else replace(known, alert=alert)
        self._keep(after)
        if change is not None and (change.before, change.after) != (State.RESOLVED, State.INACTIVE):
            if State.FIRING in (change.before, change.after):
                after = replace(after, flips=(*after.flips, self._now_ms))
                self._keep(after)
            self._transitions.append(Transition(after, change, self._now_ms))

    def _keep(self, one: Remembered) -> None:
        mark = one.fingerprint
        self._visited.add(mark)
        self._memory[mark] = one
