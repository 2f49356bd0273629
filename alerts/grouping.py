"""Who is told what, and when: pure decisions over what is firing and what each receiver was told.

The resolved contract: who was told firing is told resolved, also through silences and restarts; who was never told
firing is told nothing. It holds because a decision compares two persisted facts, what is and what was said, and never
reacts to an event that could be missed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from alerts.evaluator import State
from alerts.labels import Matcher, all_match
from alerts.memory import Remembered, Told
from alerts.notices import Line, Notice, Reason, Status


@dataclass(frozen=True, slots=True)
class Pace:
    """How often a receiver is told, milliseconds."""

    group_wait: int = 5_000
    group_interval: int = 60_000
    repeat_interval: int = 14_400_000


@dataclass(frozen=True, slots=True)
class Audience:
    """A receiver as grouping sees it."""

    name: str
    matchers: tuple[Matcher, ...] = ()
    pace: Pace = Pace()


@dataclass(frozen=True, slots=True)
class Decision:
    """What happens to one group and one receiver now.

    Attributes:
        notice: What is said, `None` for nothing.
        told: What the receiver will have been told, by fingerprint.
        due_ms: When something would be said, if nothing changes.
    """

    notice: Notice | None = None
    told: Mapping[str, Told] | None = None
    due_ms: int | None = None


def decide(
    audience: Audience, group: Sequence[Remembered], silenced: Collection[str], now_ms: int, base_url: str
) -> Decision:
    """Decide about one group of alerts and one receiver.

    Args:
        audience: The receiver.
        group: All remembered alerts of the group.
        silenced: Fingerprints of alerts that must not be announced now.
        now_ms: The time.
        base_url: What links begin with.
    """
    mine = [one for one in group if all_match(audience.matchers, one.labels) or audience.name in one.told]
    said = {one.fingerprint: one.told[audience.name] for one in mine if audience.name in one.told}
    was_firing = {mark for mark, told in said.items() if told.status is Status.FIRING}
    held = {one.fingerprint for one in mine if one.fingerprint in was_firing and one.flapping(now_ms)}
    loud = {one.fingerprint for one in mine if all_match(audience.matchers, one.labels)} - set(silenced)
    firing = [
        one for one in mine if (one.alert.state is State.FIRING and one.fingerprint in loud) or one.fingerprint in held
    ]
    gone = [
        one
        for one in mine
        if one.fingerprint in was_firing and one.alert.state is not State.FIRING and one.fingerprint not in held
    ]
    new = [one for one in firing if one.fingerprint not in was_firing]
    reason, due_ms = _when(audience.pace, firing, new, gone, said, now_ms)
    if reason is None or due_ms is None or due_ms > now_ms:
        return Decision(due_ms=due_ms)
    lines = (
        *(_line(one, Status.FIRING, said.get(one.fingerprint), now_ms) for one in firing),
        *(_line(one, Status.RESOLVED, said.get(one.fingerprint), now_ms) for one in gone),
    )
    labels = {name: value for name, value in zip(("alertname", "manager"), mine[0].group, strict=True) if value}
    notice = Notice(audience.name, reason, labels, lines, base_url, now_ms)
    told = {line.fingerprint: Told(line.status, now_ms, line.starts_ms, line.episode_ms) for line in lines}
    return Decision(notice, told, None)


def _when(
    pace: Pace,
    firing: Sequence[Remembered],
    new: Sequence[Remembered],
    gone: Sequence[Remembered],
    said: Mapping[str, Told],
    now_ms: int,
) -> tuple[Reason | None, int | None]:
    """Why the group is notified next, and when."""
    last_ms = max((min(told.ts_ms, now_ms) for told in said.values()), default=None)
    if new or gone:
        if last_ms is None:
            return Reason.FIRST, min(one.alert.fired_ms for one in new) + pace.group_wait
        if not firing:
            return Reason.ALL_RESOLVED, last_ms + pace.group_interval
        reason = Reason.NEW if new else Reason.SOME_RESOLVED
        if new and not any(told.status is Status.FIRING for told in said.values()):
            reason = Reason.FIRST
            return reason, max(last_ms + pace.group_interval, min(one.alert.fired_ms for one in new) + pace.group_wait)
        return reason, last_ms + pace.group_interval
    if firing and last_ms is not None:
        return Reason.REPEAT, last_ms + pace.repeat_interval
    return None, None


def _line(one: Remembered, status: Status, told: Told | None, now_ms: int) -> Line:
    annotations = dict(one.annotations)
    if one.flapping(now_ms):
        annotations["flapping"] = "it flips often: nothing more is sent until it has been calm for ten minutes"
    ended = status is Status.RESOLVED
    alert = one.alert
    # When it fired is a matter of each machine's ticks; when the condition of what all see alike began is the same for
    # all, where that is on record. So whoever speaks, a receiver that knows episodes has one.
    starts_ms, episode_ms = alert.fired_ms or now_ms, alert.active_ms if one.fleet else 0
    if told is not None and told.status is Status.FIRING:
        starts_ms, episode_ms = told.starts_ms, told.episode_ms
    return Line(
        status=status,
        labels=one.labels,
        annotations=annotations,
        starts_ms=starts_ms,
        ends_ms=(alert.resolved_ms or now_ms) if ended else None,
        fingerprint=one.fingerprint,
        value=alert.value,
        episode_ms=episode_ms,
    )


@dataclass(frozen=True, slots=True)
class Round:
    """Decisions over all groups and receivers: what is said, the memory after it, and when to look again."""

    notices: tuple[Notice, ...]
    memory: Mapping[str, Remembered]
    due_ms: int | None


def decide_all(
    audiences: Iterable[Audience],
    memory: Mapping[str, Remembered],
    silenced: Collection[str],
    now_ms: int,
    base_url: str,
    may_repeat: Callable[[Notice], bool] = lambda _: True,
) -> Round:
    """Decide about every group and receiver.

    Args:
        audiences: The receivers.
        memory: All remembered alerts by fingerprint.
        silenced: Fingerprints that are silenced now.
        now_ms: The time.
        base_url: What links begin with.
        may_repeat: Whether a mere repetition makes sense now.
    """
    after = dict(memory)
    groups: dict[tuple[str, str], list[str]] = {}
    for mark, one in memory.items():
        groups.setdefault(one.group, []).append(mark)
    notices: list[Notice] = []
    dues: list[int] = []
    for audience in audiences:
        for marks in groups.values():
            decision = decide(audience, [after[mark] for mark in marks], silenced, now_ms, base_url)
            if decision.due_ms is not None:
                dues.append(decision.due_ms)
            if decision.notice is None or decision.told is None:
                continue
            if decision.notice.reason is Reason.REPEAT and not may_repeat(decision.notice):
                continue
            notices.append(decision.notice)
            for mark, told in decision.told.items():
                after[mark] = replace(after[mark], told={**after[mark].told, audience.name: told})
    return Round(tuple(notices), after, min(dues, default=None))
