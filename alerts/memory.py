"""What is remembered of every alert between two evaluations, as values and as rows of `alert_states`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from alerts.evaluator import Alert, State
from alerts.labels import fingerprint
from alerts.notices import Status

INITIAL = Alert()
FLAPPING_FLIPS = 6
FLAPPING_WINDOW_MS = 3_600_000
FLAPPING_CALM_MS = 600_000


@dataclass(frozen=True, slots=True)
class Told:
    """The last thing a receiver was told about an alert, when, the start it was told, and what names the episode."""

    status: Status
    ts_ms: int
    starts_ms: int
    episode_ms: int = 0


@dataclass(frozen=True, slots=True)
class Remembered:
    """One alert.

    Attributes:
        rule: Its rule's name.
        manager: Whose it is, `None` for the store's.
        labels: Its final labels.
        alert: Where it is in its life.
        annotations: Its texts, filled.
        told: What each receiver was told.
        errors: Evaluations in a row that failed.
        error: Why the last one did.
        flips: When it began or ceased to fire, lately.
        fleet: Whether every machine of a fleet sees it alike.
    """

    rule: str
    manager: str | None
    labels: Mapping[str, str]
    alert: Alert = INITIAL
    annotations: Mapping[str, str] = field(default_factory=dict)
    told: Mapping[str, Told] = field(default_factory=dict)
    errors: int = 0
    error: str = ""
    flips: tuple[int, ...] = ()
    fleet: bool = False

    @property
    def fingerprint(self) -> str:
        """Its identity: Prometheus' hash of its labels."""
        return fingerprint(self.labels)

    @property
    def group(self) -> tuple[str, str]:
        """What it is grouped by: name and manager."""
        return self.labels.get("alertname", ""), self.labels.get("manager", "")

    @property
    def forgettable(self) -> bool:
        """Whether nothing about it needs to be kept."""
        owed = any(told.status is Status.FIRING for told in self.told.values())
        return self.alert.state is State.INACTIVE and not self.errors and not owed

    def flapping(self, now_ms: int) -> bool:
        """Whether it flips so often that only its first and last words are sent."""
        recent = [flip for flip in self.flips if now_ms - FLAPPING_WINDOW_MS < flip <= now_ms]
        return len(recent) > FLAPPING_FLIPS and now_ms - recent[-1] < FLAPPING_CALM_MS

    def shifted(self, by_ms: int) -> Remembered:
        """The same after the wall clock was stepped by so much."""
        return replace(
            self,
            alert=self.alert.shifted(by_ms),
            told={name: replace(told, ts_ms=told.ts_ms + by_ms) for name, told in self.told.items()},
            flips=tuple(flip + by_ms for flip in self.flips),
        )

    def row(self) -> tuple[Any, ...]:
        """As `queries.save_alert` takes it."""
        body = {
            "alert": {name: getattr(self.alert, name) for name in _KEPT},
            "annotations": dict(self.annotations),
            "told": {
                name: [told.status, told.ts_ms, told.starts_ms, told.episode_ms] for name, told in self.told.items()
            },
            "errors": self.errors,
            "error": self.error,
            "flips": list(self.flips[-4 * FLAPPING_FLIPS :]),
            "fleet": self.fleet,
        }
        since_ms = {State.FIRING: self.alert.fired_ms, State.RESOLVED: self.alert.resolved_ms}
        return (
            self.fingerprint,
            self.rule,
            self.manager,
            self.labels.get("severity", ""),
            json.dumps(dict(self.labels), sort_keys=True),
            self.alert.state.value,
            self.alert.value,
            since_ms.get(self.alert.state, self.alert.active_ms),
            json.dumps(body),
        )


_KEPT = tuple(one.name for one in fields(Alert) if one.name not in ("state", "value"))


def from_rows(rows: Iterable[tuple[str, str, str | None, str, str, int, float | None, str]]) -> dict[str, Remembered]:
    """Read what `Remembered.row` wrote, by fingerprint."""
    found = {}
    for _, rule, manager, labels, state, _, value, text in rows:
        body = json.loads(text)
        one = Remembered(
            rule=rule,
            manager=manager,
            labels=json.loads(labels),
            alert=Alert(state=State(state), value=value, **body.get("alert", {})),
            annotations=body.get("annotations", {}),
            told={name: Told(Status(word), *times) for name, (word, *times) in body.get("told", {}).items()},
            errors=body.get("errors", 0),
            error=body.get("error", ""),
            flips=tuple(body.get("flips", ())),
            fleet=body.get("fleet", False),
        )
        found[one.fingerprint] = one
    return found
