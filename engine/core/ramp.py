"""The way back to primary on one instance: the gate of probes, then samples of the stage that is on.

The stage itself lives in the agreed document and is advanced by `engine.core.fleet`; this module collects the
evidence for it and decides which requests take part. Gate:

    CLOSED --good × gate, spread over sustain--> READY
    any bad probe --> CLOSED, counting anew

A request takes part in a ramp by the hash of its session (or id) salted with the epoch at which the ramp began,
so a growing share only adds requests and a conversation stays on one model. The order of the stages and the
asymmetry of falling and rising follow HAProxy's `fall`/`rise` and Envoy's slow start, with evidence instead of
time alone, because requests to language models are few and long.
"""

from __future__ import annotations

from hashlib import blake2b

from engine.core.policy import RecoveryPolicy

_WHOLE = float(1 << 64)


def in_share(key: str, ramp: int, share: float) -> bool:
    """Whether a request takes part in a ramp.

    Args:
        key: The session key, or the request's id.
        ramp: The epoch at which the ramp began.
        share: The share of traffic on primary, 0..1.

    Returns:
        True for a fixed `share` of keys; keys in a smaller share are in every larger one of the same ramp.
    """
    digest = blake2b(f"{ramp}:{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) / _WHOLE < share


class Gate:
    """Consecutive good probes, spread over time, before any share of traffic goes back.

    Args:
        policy: `gate` probes over at least `sustain` seconds.
    """

    def __init__(self, policy: RecoveryPolicy) -> None:
        self._policy = policy
        self.good = 0
        self._first_good = 0.0
        self._last_start: float | None = None
        self._spacing = policy.sustain / max(policy.gate - 1, 1)

    def due_at(self, earliest: float) -> float:
        """When the next probe may start: after `earliest`, and spread evenly over `sustain`.

        Probes are requests, which come when they come: one that was late takes nothing from the time of the next,
        or a gate of thin traffic would last twice as long; two keep half their distance all the same.
        """
        if self._last_start is None or self.good == 0:
            return earliest
        return max(earliest, self._first_good + self.good * self._spacing, self._last_start + self._spacing / 2)

    def started(self, now: float) -> None:
        """A probe is on its way."""
        self._last_start = now

    def succeeded(self, now: float) -> None:
        """A probe was answered well."""
        if self.good == 0:
            self._first_good = self._last_start if self._last_start is not None else now
        self.good += 1

    def failed(self) -> None:
        """A probe failed: count anew."""
        self.good = 0

    def ready(self, now: float) -> bool:
        """Whether the gate is passed."""
        return self.good >= self._policy.gate and now - self._first_good >= self._policy.sustain


class StageSamples:
    """Good and failed calls on primary during one stage of one epoch."""

    def __init__(self, epoch: int = -1) -> None:
        self.epoch = epoch
        self.ok = 0
        self.failed = 0

    def add(self, *, ok: bool) -> None:
        """Count one vote-eligible call."""
        if ok:
            self.ok += 1
        else:
            self.failed += 1


def stage_fails(ok: int, failed: int, *, least: int = 2) -> bool:
    """Whether a stage is to be abandoned: `least` failures that are more than a fifth of its samples.

    One failure never ends a stage (the secondary answered that caller), and at 5 % true failures two of the first
    ten are a 9 % chance, while at 50 % four samples find it in 70 %.
    """
    return failed >= least and failed * 5 > ok + failed
