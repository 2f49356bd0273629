"""What is said to a receiver: a group of alerts, why now, and links that lead on. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from urllib.parse import quote, urlencode

from alerts.labels import quoted


class Reason(StrEnum):
    """Why a group is notified; Alertmanager's words."""

    FIRST = "first notification"
    NEW = "new alerts added"
    SOME_RESOLVED = "some alerts resolved"
    ALL_RESOLVED = "all alerts resolved"
    REPEAT = "repeat interval elapsed"
    TEST = "test"


class Status(StrEnum):
    """What is said about one alert."""

    FIRING = "firing"
    RESOLVED = "resolved"


@dataclass(frozen=True, slots=True)
class Line:
    """One alert in a notice; times are milliseconds, `ends_ms` is `None` while it fires.

    `episode_ms` tells one firing from the next where that is not the start: 0 for the start.
    """

    status: Status
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    starts_ms: int
    ends_ms: int | None
    fingerprint: str
    value: float | None = None
    episode_ms: int = 0

    @property
    def episode(self) -> str:
        """The same for one firing and its resolution, another for the next."""
        return f"{self.fingerprint}-{self.episode_ms or self.starts_ms}"

    @property
    def summary(self) -> str:
        """The text for a headline."""
        return self.annotations.get("summary") or self.labels.get("alertname", "alert")


@dataclass(frozen=True, slots=True)
class Notice:
    """What one receiver is told about one group.

    Attributes:
        receiver: Its name.
        reason: Why now.
        group: The labels that make the group.
        lines: Its alerts, firing ones first.
        base_url: What links begin with.
        now_ms: When it was decided.
    """

    receiver: str
    reason: Reason
    group: Mapping[str, str]
    lines: tuple[Line, ...]
    base_url: str
    now_ms: int

    @property
    def status(self) -> Status:
        """Firing while any of its alerts is."""
        firing = any(line.status is Status.FIRING for line in self.lines)
        return Status.FIRING if firing else Status.RESOLVED

    @property
    def key(self) -> str:
        """The group's identity, as Alertmanager writes it."""
        return "{}:" + brackets(self.group)

    def common(self, what: str) -> dict[str, str]:
        """The `labels` or `annotations` that all its alerts share."""
        tables = [getattr(line, what) for line in self.lines]
        shared = set.intersection(*({*table.items()} for table in tables)) if tables else set()
        return dict(sorted(shared))

    def alert_url(self, line: Line) -> str:
        """Where the rule and the incident of an alert are shown."""
        labels = line.labels
        query = {"rule": labels.get("alertname", ""), "manager": labels.get("manager", ""), "at": line.starts_ms}
        return f"{self.base_url}/alerts?{urlencode({name: value for name, value in query.items() if value})}"

    def incident_url(self, line: Line) -> str:
        """Where what happened at that time is shown."""
        query = {"manager": line.labels.get("manager", ""), "at": line.starts_ms}
        return f"{self.base_url}/incidents?{urlencode({name: value for name, value in query.items() if value})}"

    def silence_url(self, line: Line) -> str:
        """A silence of just this alert, ready to be given a reason."""
        matchers = ",".join(f"{name}={quoted(value)}" for name, value in sorted(line.labels.items()))
        return f"{self.base_url}/alerts?silence={quote(matchers, safe='')}"


def brackets(labels: Mapping[str, str]) -> str:
    """Labels as Prometheus writes them: `{alertname="X", manager="chat"}`."""
    return "{" + ", ".join(f"{name}={quoted(value)}" for name, value in sorted(labels.items())) + "}"


def iso(ms: int | None) -> str:
    """A time as RFC 3339 in UTC; Go's zero time for none."""
    if ms is None:
        return "0001-01-01T00:00:00Z"
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
