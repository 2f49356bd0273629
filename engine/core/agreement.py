"""The values of the agreement: the document all instances share, their votes, and who is alive.

The rules that change the document are in `engine.core.fleet`; stores that hold it are in `engine.fleet`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from math import inf
from types import NoneType
from typing import Any

from engine.core.messages import Role

DOCUMENT_VERSION = 1


class DocumentError(ValueError):
    """What a store held is not a document this version understands."""


class Verdict(StrEnum):
    """An instance's opinion of one model."""

    UP = "up"
    DOWN = "down"
    ABSTAIN = "abstain"


@dataclass(frozen=True, slots=True)
class Override:
    """A model pinned by an operator.

    Attributes:
        role: The pinned role.
        strict: Without fallback.
        reason: Why, in the operator's words.
        by: Who.
        ttl: Seconds it lasts from the moment an observer first sees it.
        expires_ms: Wall time of the end, for people; never compared between machines.
        epoch: The epoch that set it.
    """

    role: Role
    strict: bool
    reason: str
    by: str
    ttl: float
    expires_ms: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Force:
    """A breaker forced by an operator, on every instance."""

    state: str
    reason: str
    by: str
    ttl: float
    expires_ms: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Document:
    """What the fleet agreed on for one manager.

    Attributes:
        epoch: Grows by one with every change.
        active: The active model's role.
        share: Share of traffic on primary, 0..1; 1 exactly when primary is active and nothing ramps.
        stage: Index of the ramp's stage, `None` when no ramp is on.
        ramp: The epoch at which the ramp began; salts the share hash so that a growing share only adds requests.
        cause: Why this document was written.
        since_ms: Wall time at which `active` last changed.
        hold: Seconds that secondary is kept at least, from when an observer saw the move.
        hold_until_ms: The same as wall time, for people.
        flaps: Recent flaps; each doubles the hold.
        override: An operator's pin.
        forced: Forced breakers by role.
        writer: Instance that wrote it, with a nonce, to recognise one's own success after an unknown answer.
        evidence: What justified the last change.
    """

    epoch: int = 0
    active: Role = Role.PRIMARY
    share: float = 1.0
    stage: int | None = None
    ramp: int = 0
    cause: str = "start"
    since_ms: int = 0
    hold: float = 0.0
    hold_until_ms: int = 0
    flaps: int = 0
    override: Override | None = None
    forced: Mapping[str, Force] = field(default_factory=dict)
    writer: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)

    def following(self, **changes: Any) -> Document:
        """The next document: these changes, one epoch later."""
        return replace(self, epoch=self.epoch + 1, **changes)

    def to_json(self) -> str:
        """The document as stores keep it."""
        return json.dumps(
            {"v": DOCUMENT_VERSION, **asdict(self)},
            separators=(",", ":"),
            sort_keys=True,
        )

    @classmethod
    def from_json(cls, text: str | bytes) -> Document:
        """Read what `to_json` wrote.

        Raises:
            DocumentError: It is not a document, or one written by a newer version.
        """
        try:
            body = json.loads(text)
            version = body.pop("v")
            if version > DOCUMENT_VERSION:
                msg = f"the document was written by a newer version ({version} > {DOCUMENT_VERSION}): upgrade Switchgear here"
                raise DocumentError(msg)
            _check_types(body)
            override = body.pop("override")
            forced = body.pop("forced")
            return cls(
                **{**body, "active": Role(body["active"])},
                override=Override(**{**override, "role": Role(override["role"])}) if override else None,
                forced={role: Force(**force) for role, force in forced.items()},
            )
        except DocumentError:
            raise
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            msg = f"not an agreement document: {error}"
            raise DocumentError(msg) from error


_TYPES: Mapping[str, tuple[type, ...]] = {
    "epoch": (int,),
    "share": (int, float),
    "stage": (int, NoneType),
    "ramp": (int,),
    "hold": (int, float),
    "flaps": (int,),
    "writer": (str,),
    "evidence": (dict,),
}
"""What the rules compute with; a document is somebody else's writing until these are checked."""


def _check_types(body: Mapping[str, Any]) -> None:
    for name, types in _TYPES.items():
        value = body[name]
        if not isinstance(value, types) or isinstance(value, bool):
            msg = f"{name} is {value!r}"
            raise TypeError(msg)
    if body["epoch"] < 0 or not 0 <= body["share"] <= 1 or not 0 <= body["hold"] < inf:
        msg = f"epoch is {body['epoch']}, share is {body['share']}, hold is {body['hold']}"
        raise ValueError(msg)


@dataclass(frozen=True, slots=True)
class Opinion:
    """One instance's finding about one model, with its evidence.

    Attributes:
        verdict: Up, down, or no opinion for lack of traffic.
        samples: Vote-eligible calls in the breaker's window.
        failures: How many of them failed.
        reason: The breaker's reason for its state.
    """

    verdict: Verdict = Verdict.ABSTAIN
    samples: int = 0
    failures: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Vote:
    """What one instance says about one manager; leased by the store.

    Attributes:
        instance: Who votes.
        host: Its host; a host has one vote, its workers' majority.
        epoch: The epoch the samples below belong to.
        primary: Its finding about primary.
        secondary: Its finding about secondary.
        ready: Whether its probe gate towards primary is passed.
        stage_ok: Good samples on primary in this epoch's ramp stage.
        stage_failed: Failed ones.
        seq: Grows with every vote of this instance.
    """

    instance: str
    host: str
    epoch: int
    primary: Opinion = Opinion()
    secondary: Opinion = Opinion()
    ready: bool = False
    stage_ok: int = 0
    stage_failed: int = 0
    seq: int = 0

    def opinion(self, role: Role) -> Opinion:
        """The finding about a role."""
        return self.primary if role is Role.PRIMARY else self.secondary

    def to_json(self) -> str:
        """The vote as stores keep it."""
        return json.dumps(asdict(self), separators=(",", ":"), sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> Vote:
        """Read what `to_json` wrote; raises `DocumentError` for anything else."""
        try:
            body = json.loads(text)
            for role in ("primary", "secondary"):
                body[role] = Opinion(**{**body[role], "verdict": Verdict(body[role]["verdict"])})
            return cls(**body)
        except (ValueError, TypeError, KeyError) as error:
            msg = f"not a vote: {error}"
            raise DocumentError(msg) from error


@dataclass(frozen=True, slots=True)
class Member:
    """One instance of the fleet.

    Attributes:
        instance: Its name, unique.
        host: The machine it runs on.
        version: Switchgear's version there.
        started_ms: Wall time of its start.
        alive: Whether its lease is fresh.
        lost_for: Seconds since its lease ended, by this observer's monotonic clock; 0 while alive.
        gauges: What belongs to one process: in-flight requests, queue length, breaker states, epoch seen.
    """

    instance: str
    host: str
    version: str = ""
    started_ms: int = 0
    alive: bool = True
    lost_for: float = 0.0
    gauges: Mapping[str, Any] = field(default_factory=dict)
