"""The settings of the pure core as frozen values. Every duration is seconds, every price USD per million tokens.

`engine.config` reads them from TOML and is the only place that knows files; defaults stand here once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from engine.core.messages import Role


class OnRateLimit(StrEnum):
    """What happens to demand over a model's limit once `rate_limit_wait` is used up."""

    SHED = "shed"
    SPILL = "spill"
    FAILOVER = "failover"


class OnContentFilter(StrEnum):
    """Whether a blocked prompt is the caller's answer or goes to the other model."""

    SURFACE = "surface"
    ROUTE = "route"


class OnAuthError(StrEnum):
    """Whether refused credentials fail the request or move it."""

    FAIL = "fail"
    ROUTE = "route"


class OnBrokenStream(StrEnum):
    """Whether a stream that breaks after content goes on at the other model."""

    CONTINUE = "continue"
    ERROR = "error"


class WhenBothOpen(StrEnum):
    """What happens while neither breaker lets a request through."""

    FAIL = "fail"
    TRY_ANYWAY = "try_anyway"


@dataclass(frozen=True, slots=True)
class Timeouts:
    """The clocks of a call, seconds."""

    connect: float = 5.0
    first_token: float = 30.0
    answer: float = 60.0
    idle: float = 15.0
    total: float = 120.0


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What is known about one model.

    Attributes:
        key: Its name in the configuration.
        name: The provider's name, also the `model` label everywhere.
        provider: Key of the provider that serves it.
        context_window: Tokens of prompt and answer together, `None` when unknown.
        max_output_tokens: Longest answer in tokens, `None` when unknown.
        capabilities: Of `tools`, `vision`, `json_schema`, `system`, `prefill`.
        input_price: USD per million prompt tokens, `None` when unknown.
        output_price: USD per million answer tokens, `None` when unknown.
        requests_per_minute: The provider's limit, `None` when it is to be learned from 429s.
        tokens_per_minute: The same for tokens.
        timeouts: This model's clocks; the manager's with what `[models.X.timeouts]` overrides.
    """

    key: str
    name: str
    provider: str
    context_window: int | None = None
    max_output_tokens: int | None = None
    capabilities: frozenset[str] = frozenset({"tools", "vision", "json_schema", "system"})
    input_price: float | None = None
    output_price: float | None = None
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    timeouts: Timeouts = Timeouts()


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Retries on the same model.

    Attributes:
        attempts: Most attempts per model and request.
        base_delay: First backoff ceiling, seconds; doubles per retry.
        max_delay: Largest backoff, seconds.
        budget: Retries as a share of requests …
        budget_floor: … plus this many a minute.
    """

    attempts: int = 3
    base_delay: float = 0.5
    max_delay: float = 20.0
    budget: float = 0.1
    budget_floor: float = 10.0


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """When a breaker opens and for how long; durations in seconds, rates 0..1."""

    window: float = 60.0
    min_calls: int = 10
    failure_rate: float = 0.5
    slow_call: float = 30.0
    slow_rate: float = 0.8
    consecutive_failures: int = 5
    open_for: float = 15.0
    open_max: float = 30.0
    probes: int = 1


@dataclass(frozen=True, slots=True)
class RecoveryPolicy:
    """The way back to primary; durations in seconds, stages as shares of traffic."""

    hold: float = 15.0
    probe_timeout: float = 10.0
    gate: int = 5
    sustain: float = 15.0
    stages: tuple[float, ...] = (0.1, 0.25, 0.5, 1.0)
    stage_for: float = 15.0
    stage_samples: int = 5


@dataclass(frozen=True, slots=True)
class SpillPolicy:
    """How much rate-limited demand may go to the other model: `share` of the last minute's requests plus `floor`."""

    share: float = 0.2
    floor: float = 10.0


@dataclass(frozen=True, slots=True)
class ValidationPolicy:
    """What is checked about an answer's meaning."""

    json_schema: bool = False
    canaries: str = ""
    canary_every: float = 300.0


@dataclass(frozen=True, slots=True)
class FleetPolicy:
    """How instances agree.

    Attributes:
        quorum: Down votes must be more than this share of the hosts with an opinion.
        vote_ttl: Seconds a vote stays fresh.
        member_grace: Seconds a lost instance's host still counts.
    """

    quorum: float = 0.5
    vote_ttl: float = 10.0
    member_grace: float = 120.0


@dataclass(frozen=True, slots=True)
class ManagerPolicy:
    """Everything that decides one manager's behaviour; an empty `continuation_instruction` is the built-in one."""

    name: str
    primary: ModelFacts
    secondary: ModelFacts
    on_rate_limit: OnRateLimit = OnRateLimit.SPILL
    rate_limit_wait: float = 5.0
    on_content_filter: OnContentFilter = OnContentFilter.SURFACE
    on_auth_error: OnAuthError = OnAuthError.FAIL
    on_broken_stream: OnBrokenStream = OnBrokenStream.CONTINUE
    when_both_open: WhenBothOpen = WhenBothOpen.FAIL
    continuation_instruction: str = ""
    timeouts: Timeouts = field(default_factory=Timeouts)
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    breaker: BreakerPolicy = field(default_factory=BreakerPolicy)
    recovery: RecoveryPolicy = field(default_factory=RecoveryPolicy)
    spill: SpillPolicy = field(default_factory=SpillPolicy)
    validation: ValidationPolicy = field(default_factory=ValidationPolicy)
    fleet: FleetPolicy = field(default_factory=FleetPolicy)

    def model(self, role: Role) -> ModelFacts:
        """The model in a role."""
        return self.primary if role is Role.PRIMARY else self.secondary
