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


_NUMBER = (int, float)
_DOCUMENT_TYPES: Mapping[str, tuple[type, ...]] = {
    "epoch": (int,),
    "share": _NUMBER,
    "stage": (int, NoneType),
    "ramp": (int,),
    "cause": (str,),
    "hold": _NUMBER,
    "flaps": (int,),
    "moved": (int,),
    "moved_by": (str,),
    "writer": (str,),
    "evidence": (dict,),
    "override": (dict, NoneType),
    "forced": (dict,),
}
_ACT_TYPES: Mapping[str, tuple[type, ...]] = {"reason": (str,), "by": (str,), "ttl": _NUMBER, "epoch": (int,)}
_VOTE_TYPES: Mapping[str, tuple[type, ...]] = {
    "instance": (str,),
    "host": (str,),
    "epoch": (int,),
    "primary": (dict,),
    "secondary": (dict,),
    "stage_ok": (int,),
    "stage_failed": (int,),
    "seq": (int,),
}


def _check(body: Mapping[str, Any], types: Mapping[str, tuple[type, ...]]) -> None:
    """What the rules compute with is somebody else's writing until this passed."""
    for name, allowed in types.items():
        value = body[name]
        if not isinstance(value, allowed) or isinstance(value, bool):
            msg = f"{name} is {value!r}"
            raise TypeError(msg)
        if isinstance(value, int | float) and not 0 <= value < inf:
            msg = f"{name} is {value}"
            raise ValueError(msg)


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
        moved: The epoch at which `active` last changed, 0 for never: whoever adopts a later document without having
            seen that one still records the move under its own epoch.
        moved_by: The cause of that change.
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
    moved: int = 0
    moved_by: str = ""
    override: Override | None = None
    forced: Mapping[str, Force] = field(default_factory=dict)
    writer: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)

    def following(self, **changes: Any) -> Document:
        """The next document: these changes, one epoch later."""
        following = replace(self, epoch=self.epoch + 1, **changes)
        if following.active is self.active:
            return following
        return replace(following, moved=following.epoch, moved_by=following.cause)

    def is_same(self, other: Document) -> bool:
        """Whether both say the same; of one epoch there can be two only in a store that forgot a write."""
        return self == other or self.to_json() == other.to_json()

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
            newer = version > DOCUMENT_VERSION
            document = None if newer else cls._from_body(body)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            msg = f"not an agreement document: {error}"
            raise DocumentError(msg) from error
        if document is None:
            newest = f"{version} > {DOCUMENT_VERSION}"
            msg = f"the document was written by a newer version ({newest}): upgrade Switchgear here"
            raise DocumentError(msg)
        return document

    @classmethod
    def _from_body(cls, body: dict[str, Any]) -> Document:
        body = {"moved": 0, "moved_by": "", **body}  # not in the first documents of this version
        _check(body, _DOCUMENT_TYPES)
        if body["share"] > 1:
            msg = f"share is {body['share']}"
            raise ValueError(msg)
        override, forced = body.pop("override"), body.pop("forced")
        for act in (*forced.values(), *([override] if override else [])):
            _check(act, _ACT_TYPES)
        if override and not isinstance(override["strict"], bool):
            msg = f"strict is {override['strict']!r}"
            raise TypeError(msg)
        unknown = {force["state"] for force in forced.values()} - {"forced_open", "forced_closed"}
        if unknown:
            msg = f"no breaker can be {', '.join(sorted(map(str, unknown)))}"
            raise ValueError(msg)
        return cls(
            **{**body, "active": Role(body["active"])},
            override=Override(**{**override, "role": Role(override["role"])}) if override else None,
            forced={str(Role(role)): Force(**force) for role, force in forced.items()},
        )


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
            _check(body, _VOTE_TYPES)
            for role in ("primary", "secondary"):
                _check(body[role], {"samples": (int,), "failures": (int,)})
                body[role] = Opinion(**{**body[role], "verdict": Verdict(body[role]["verdict"])})
            return cls(**body)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
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
