"""What causes, states and acts are called on a page, who can do something about a cause, and what to do next.

One table per vocabulary; a test holds them to the enums of the engine, so a new cause cannot appear without words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class Tone(StrEnum):
    """State as colour; always beside an icon and a word."""

    OK = "ok"
    WARN = "warn"
    BAD = "bad"
    INFO = "info"
    MUTED = "muted"


class Owner(StrEnum):
    """Who can do something about a cause."""

    PROVIDER = "Wait for the provider"
    ACCOUNT = "Billing or access"
    CONFIGURATION = "Configuration"
    APPLICATION = "The application"
    OPERATOR = "An operator"
    SWITCHGEAR = "Nothing to do"


OWNER_ICONS: Final[Mapping[Owner, str]] = MappingProxyType(
    {
        Owner.PROVIDER: "hourglass_top",
        Owner.ACCOUNT: "key",
        Owner.CONFIGURATION: "tune",
        Owner.APPLICATION: "code",
        Owner.OPERATOR: "person",
        Owner.SWITCHGEAR: "check",
    }
)


@dataclass(frozen=True, slots=True)
class Advice:
    """A cause in words.

    Attributes:
        label: Its name on a page.
        owner: Who can do something about it.
        next: What to do now, one sentence.
        tone: How bad it is by itself.
    """

    label: str
    owner: Owner
    next: str
    tone: Tone = Tone.WARN


CAUSES: Final[Mapping[str, Advice]] = MappingProxyType(
    {
        "server_error": Advice(
            "Provider errors (5xx)",
            Owner.PROVIDER,
            "Check the provider's status page and wait: traffic returns by itself once probes succeed.",
            Tone.BAD,
        ),
        "connection": Advice(
            "Connection failures",
            Owner.PROVIDER,
            "Check network, DNS and proxy of this host first; if other hosts are fine, it is here and "
            "not the provider.",
            Tone.BAD,
        ),
        "timeout": Advice(
            "Too slow",
            Owner.PROVIDER,
            "Wait for the provider; if its normal latency is near the limit, raise "
            "timeouts.first_token in the configuration.",
            Tone.BAD,
        ),
        "truncated": Advice(
            "Streams cut off",
            Owner.PROVIDER,
            "Wait for the provider; check proxies between here and it if it persists.",
            Tone.BAD,
        ),
        "semantic": Advice(
            "Answers rejected",
            Owner.APPLICATION,
            "Look at rejected answers under Requests: the schema or validator may ask for what the model cannot give.",
        ),
        "rate_limited": Advice(
            "Rate limited (429)",
            Owner.ACCOUNT,
            "Demand is over the provider's limit: ask for a higher quota or send less. Nobody is "
            "failed over wholesale.",
        ),
        "quota_exhausted": Advice(
            "Daily quota used up",
            Owner.ACCOUNT,
            "Raise the quota or enable billing; otherwise it returns when the day's quota resets.",
            Tone.BAD,
        ),
        "auth": Advice(
            "Credentials rejected",
            Owner.ACCOUNT,
            "Check that the API key exists, is not expired, and may use this model; then restart with the new key.",
            Tone.BAD,
        ),
        "content_filter": Advice(
            "Blocked by content filter",
            Owner.APPLICATION,
            "The provider refuses this content; change the prompt. Failing over would go round a safety rule.",
        ),
        "context_length": Advice(
            "Prompt too long",
            Owner.APPLICATION,
            "Shorten the prompt, or configure a model with a larger context window.",
        ),
        "invalid_request": Advice(
            "Invalid request",
            Owner.APPLICATION,
            "The provider rejects the request as malformed; the error text names the field.",
        ),
        "capability": Advice(
            "Model lacks a capability",
            Owner.CONFIGURATION,
            "Give the other model's capabilities in the configuration, or choose a model that has them.",
        ),
        "model_unavailable": Advice(
            "Model retired or not granted",
            Owner.CONFIGURATION,
            "Check the model's name in the configuration and that the account has access to it.",
            Tone.BAD,
        ),
        "breaker_open": Advice(
            "Breaker open",
            Owner.SWITCHGEAR,
            "The breaker keeps traffic away until a probe succeeds; see what opened it.",
        ),
        "quorum": Advice(
            "Primary voted down",
            Owner.PROVIDER,
            "Most hosts find the primary failing; traffic returns by itself once probes succeed.",
            Tone.BAD,
        ),
        "canary": Advice(
            "Canary failed",
            Owner.APPLICATION,
            "A known question got a wrong answer; compare both models in the Playground.",
        ),
        "override": Advice(
            "Operator", Owner.OPERATOR, "Somebody decided this; see who and why under Control.", Tone.INFO
        ),
        "failback": Advice(
            "Recovered", Owner.SWITCHGEAR, "Primary passed its probes and the ramp is complete.", Tone.OK
        ),
        "probe": Advice("Probe", Owner.SWITCHGEAR, "A real request tried the recovering model.", Tone.INFO),
        "ramp": Advice("Ramp", Owner.SWITCHGEAR, "Part of the traffic is back on primary.", Tone.INFO),
        "cancelled": Advice(
            "Cancelled by caller", Owner.APPLICATION, "The caller went away before the answer was complete.", Tone.MUTED
        ),
        "ok": Advice("Answered", Owner.SWITCHGEAR, "", Tone.OK),
        "start": Advice("Start", Owner.SWITCHGEAR, "Switchgear began to serve this manager.", Tone.INFO),
    }
)


@dataclass(frozen=True, slots=True)
class Face:
    """A state as it is shown: a word, an icon and a tone."""

    word: str
    icon: str
    tone: Tone


BREAKERS: Final[Mapping[str, Face]] = MappingProxyType(
    {
        "closed": Face("Closed", "check_circle", Tone.OK),
        "open": Face("Open", "cancel", Tone.BAD),
        "half_open": Face("Half-open", "contrast", Tone.WARN),
        "forced_open": Face("Forced open", "front_hand", Tone.BAD),
        "forced_closed": Face("Forced closed", "front_hand", Tone.WARN),
    }
)

OUTCOMES: Final[Mapping[str, Face]] = MappingProxyType(
    {
        "ok": Face("Answered", "check_circle", Tone.OK),
        "error": Face("Error", "cancel", Tone.BAD),
        "shed": Face("Shed", "block", Tone.WARN),
        "cancelled": Face("Cancelled", "do_not_disturb_on", Tone.MUTED),
    }
)

WATCHDOG: Final = "none"
"""Severity of an alert that fires as long as all is well; news only for who waits for its absence."""

ALERTS: Final[Mapping[str, Face]] = MappingProxyType(
    {
        "inactive": Face("Inactive", "notifications_off", Tone.MUTED),
        "pending": Face("Pending", "hourglass_top", Tone.WARN),
        "firing": Face("Firing", "notifications_active", Tone.BAD),
        "resolved": Face("Resolved", "check_circle", Tone.OK),
        "watching": Face("Watching", "favorite", Tone.OK),
    }
)

DELIVERIES: Final[Mapping[str, Face]] = MappingProxyType(
    {
        "pending": Face("Pending", "schedule", Tone.WARN),
        "leased": Face("Sending", "sync", Tone.INFO),
        "delivered": Face("Delivered", "check_circle", Tone.OK),
        "dead": Face("Failed for good", "cancel", Tone.BAD),
        "cancelled": Face("Cancelled", "do_not_disturb_on", Tone.MUTED),
    }
)

ACTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "set": "pinned {role}",
        "clear": "returned to automatic",
        "expire": "override expired",
        "expired": "override expired",
        "forced_open": "forced the {role} breaker open",
        "forced_closed": "forced the {role} breaker closed",
        "auto": "let the {role} breaker decide again",
        "withdrawn": "was too late: somebody else had changed it meanwhile",
    }
)

REASONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "failure_rate": "failure rate over the threshold",
        "slow_rate": "too many slow calls",
        "consecutive_failures": "failures in a row",
        "probe_failed": "the probe failed",
        "probe_ok": "the probe succeeded",
        "probe_expired": "the probe never came back",
        "probe_due": "time for a probe",
        "probe_slow": "the probe was too slow",
    }
)


def advice(cause: str | None) -> Advice:
    """The words of a cause; an unknown one is shown as itself."""
    known = CAUSES.get(cause or "")
    text = (cause or "unknown").replace("_", " ")
    return known or Advice(text[:1].upper() + text[1:], Owner.OPERATOR, "Look at the evidence.")


def named(advices: Sequence[Advice]) -> str:
    """Several causes in one name: the first as it is, the others as the sentence goes on."""
    first, *others = [advice.label for advice in advices]
    return " and ".join([first, *(label[:1].lower() + label[1:] for label in others)])


def face(table: Mapping[str, Face], state: str | None) -> Face:
    """How a state is shown; an unknown one is shown as itself, without colour."""
    return table.get(state or "") or Face((state or "unknown").replace("_", " ").capitalize(), "help", Tone.MUTED)


def reason(word: str) -> str:
    """A breaker's reason in words."""
    return REASONS.get(word, word.replace("_", " "))


def act(action: str, role: str | None) -> str:
    """An operator's act in words, to follow the actor's name."""
    return ACTS.get(action, action.replace("_", " ")).format(role=role or "model")
