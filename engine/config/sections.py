"""The shape of the configuration file, section by section, as frozen pydantic models.

Defaults of everything the pure core decides with are taken from `engine.core.policy`, where they stand once.
What a single value may be is said here; what two values may be together is in `engine.config.checks`.
"""

from __future__ import annotations

from dataclasses import fields
from enum import StrEnum
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema
from pydantic_core import PydanticCustomError

from engine.core.policy import (
    BreakerPolicy,
    FleetPolicy,
    ManagerPolicy,
    OnAuthError,
    OnBrokenStream,
    OnContentFilter,
    OnRateLimit,
    RecoveryPolicy,
    RetryPolicy,
    SpillPolicy,
    Timeouts,
    ValidationPolicy,
    WhenBothOpen,
)
from engine.durations import DurationError, compact, parse_duration

_TIMEOUTS: Final = Timeouts()
_RETRY: Final = RetryPolicy()
_BREAKER: Final = BreakerPolicy()
_RECOVERY: Final = RecoveryPolicy()
_SPILL: Final = SpillPolicy()
_VALIDATION: Final = ValidationPolicy()
_FLEET: Final = FleetPolicy()
_MANAGER: Final[dict[str, Any]] = {field.name: field.default for field in fields(ManagerPolicy)}

ENV_NAME: Final = r"^([A-Za-z_][A-Za-z0-9_]{0,127})?$"
KEY_NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"


def _duration(value: object) -> float:
    try:
        return parse_duration(value)
    except DurationError as error:
        kind = "duration"
        raise PydanticCustomError(kind, "{reason}", {"reason": str(error)}) from error


_DURATION_SCHEMA: Final[dict[str, Any]] = {
    "anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": r"^(\d+(\.\d+)?(ms|[dhms]))+$"}]
}
Duration = Annotated[
    float,
    BeforeValidator(_duration),
    PlainSerializer(compact, return_type=str, when_used="json"),
    WithJsonSchema(_DURATION_SCHEMA, mode="validation"),
]
Span = Annotated[Duration, Field(gt=0)]
Rate = Annotated[float, Field(gt=0, le=1)]
EnvName = Annotated[str, Field(pattern=ENV_NAME)]
Port = Annotated[int, Field(ge=0, le=65_535)]
Name = Annotated[str, Field(pattern=KEY_NAME)]
Capability = Literal["tools", "vision", "json_schema", "system", "prefill"]


class Section(BaseModel):
    """A table of the file: immutable, and a key it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class ServerSection(Section):
    """`[server]`: the gateway, the control API and /metrics."""

    host: str = Field("127.0.0.1", min_length=1)
    """Address to listen on; any but a loopback one needs keys."""
    port: Port = 8080
    """Port to listen on; 0 lets the system choose."""
    api_keys_env: EnvName = "SWITCHGEAR_API_KEYS"
    """Variable with the comma-separated keys of callers of /v1."""
    operator_keys_env: EnvName = "SWITCHGEAR_OPERATOR_KEYS"
    """Variable with comma-separated `name:key`; control API, and dashboard sign-in without OIDC."""
    viewer_keys_env: EnvName = "SWITCHGEAR_VIEWER_KEYS"
    """The same for those who may look and not act."""
    max_body: int = Field(20_000_000, gt=0)
    """Largest request body, bytes."""


class DashboardSection(Section):
    """`[dashboard]`: the Streamlit app."""

    host: str = Field("127.0.0.1", min_length=1)
    """Address to listen on; any but a loopback one needs a sign-in."""
    port: Port = 8501
    """Port to listen on."""
    public_url: str = Field("", pattern=r"^(https?://[^\s?#]+)?$")
    """What links in notifications begin with; empty: the address above."""
    operators: tuple[str, ...] = ()
    """E-mail addresses that OIDC signs in as operators; others are viewers."""


class Durability(StrEnum):
    """When an answer may leave: after its record is committed, or with the record at most 50 ms behind."""

    COMMIT = "commit"
    BATCH = "batch"


class StoreSection(Section):
    """`[store]`: the flight recorder's database."""

    url: str = "sqlite:///switchgear.db"
    """Where the record is; a relative path is beside the file."""
    durability: Durability = Durability.COMMIT
    """`commit`: an answer leaves only after its record is committed; `batch`: within 50 ms."""
    record_content: bool = False
    """Whether prompts and answers are stored."""
    retention: Span = parse_duration("30d")
    """How long raw rows are kept; rollups stay."""


class FleetSection(Section):
    """`[fleet]`: how instances agree on the active model."""

    url: str = "store"
    """`store`: processes that share it; else `redis://`, `etcd://` or `zookeeper://`, never with a password."""
    url_env: EnvName = ""
    """Variable with the whole URL, for one that holds a password; wins over `url` where it is set."""
    ca: str = ""
    """File of the authorities to trust besides the system's, for `rediss://`, `etcds://` and `zookeepers://`."""
    cert: str = ""
    """File of our own certificate, where the coordinator asks for one."""
    key: str = ""
    """File of its private key, without a passphrase; empty: it is in the same file."""
    host: str = ""
    """Name of this host, which has one vote; empty: the machine's name."""
    quorum: float = Field(_FLEET.quorum, ge=0, lt=1)
    """Down votes must be more than this share of the fresh ones."""
    vote_ttl: Span = _FLEET.vote_ttl
    """How long a vote stays fresh."""
    member_grace: Duration = _FLEET.member_grace
    """How long a lost instance's host still counts in the quorum."""


class ProviderKind(StrEnum):
    """The libraries and protocols a provider can be reached by."""

    GOOGLE_GENERATIVEAI = "google-generativeai"
    GOOGLE_GENAI = "google-genai"
    OPENAI = "openai"
    SIMULATED = "simulated"


class ProviderSection(Section):
    """`[providers.X]`: one account at one endpoint."""

    kind: ProviderKind
    """How it is reached."""
    api_key_env: EnvName = ""
    """Variable with the key; empty: the endpoint needs none."""
    base_url: str = ""
    """Another endpoint; `openai`: with its `/v1`, the Google kinds: the bare root. Empty: the provider's own."""


class ModelTimeoutsSection(Section):
    """`[models.X.timeouts]`: the manager's clocks, overridden for one model."""

    connect: Span | None = None
    """See `managers.X.timeouts.connect`."""
    first_token: Span | None = None
    """See `managers.X.timeouts.first_token`."""
    answer: Span | None = None
    """See `managers.X.timeouts.answer`."""
    idle: Span | None = None
    """See `managers.X.timeouts.idle`."""
    total: Span | None = None
    """The longest this model may take of a request; never more than the manager's."""


class ModelSection(Section):
    """`[models.X]`: one model. What is not set comes from data/models.toml; 0 means unknown."""

    provider: Name
    """Key of the provider that serves it."""
    name: str = Field(min_length=1, max_length=200)
    """The provider's name for it; also the `model` label everywhere."""
    context_window: int = Field(0, ge=0)
    """Tokens of prompt and answer together."""
    max_output_tokens: int = Field(0, ge=0)
    """Longest answer in tokens."""
    capabilities: tuple[Capability, ...] = ()
    """What it can do: `tools`, `vision`, `json_schema`, `system`, `prefill`."""
    input_price: float = Field(0, ge=0)
    """USD per million prompt tokens."""
    output_price: float = Field(0, ge=0)
    """USD per million answer tokens."""
    requests_per_minute: float = Field(0, ge=0)
    """The provider's limit; 0: learn it from 429s."""
    tokens_per_minute: float = Field(0, ge=0)
    """The same for tokens."""
    timeouts: ModelTimeoutsSection = ModelTimeoutsSection()
    """Clocks of this model that differ from the manager's."""


class TimeoutsSection(Section):
    """`[managers.X.timeouts]`: the clocks of a call."""

    connect: Span = _TIMEOUTS.connect
    """Reaching the provider."""
    first_token: Span = _TIMEOUTS.first_token
    """First sign of life of a stream; thought events count, a role or an empty chunk does not."""
    answer: Span = _TIMEOUTS.answer
    """One whole attempt when not streaming."""
    idle: Span = _TIMEOUTS.idle
    """Silence of a stream: no text, tool call or thought; comments and empty chunks keep it silent."""
    total: Span = _TIMEOUTS.total
    """One deadline for all waits, retries and failovers of a request."""


class RetrySection(Section):
    """`[managers.X.retry]`: retries on the same model."""

    attempts: int = Field(_RETRY.attempts, ge=1, le=20)
    """Most attempts per model and request."""
    base_delay: Duration = _RETRY.base_delay
    """First backoff ceiling; doubles per retry."""
    max_delay: Duration = _RETRY.max_delay
    """Largest backoff."""
    budget: float = Field(_RETRY.budget, ge=0, le=10)
    """Retries as a share of the last minute's requests …"""
    budget_floor: float = Field(_RETRY.budget_floor, ge=0)
    """… plus this many a minute."""


class BreakerSection(Section):
    """`[managers.X.breaker]`: when a breaker opens, and for how long."""

    window: Span = _BREAKER.window
    """Length of the sliding window."""
    min_calls: int = Field(_BREAKER.min_calls, ge=1)
    """Calls in the window before rates count."""
    failure_rate: Rate = _BREAKER.failure_rate
    """Share of failures that opens it."""
    slow_call: Span = _BREAKER.slow_call
    """A call slower than this is slow; a stream is judged by its first token."""
    slow_rate: Rate = _BREAKER.slow_rate
    """Share of slow calls that opens it."""
    consecutive_failures: int = Field(_BREAKER.consecutive_failures, ge=1)
    """Failures in a row that open it."""
    open_for: Span = _BREAKER.open_for
    """First wait while open; doubles on every reopen …"""
    open_max: Span = _BREAKER.open_max
    """… up to this."""
    probes: int = Field(_BREAKER.probes, ge=1)
    """Probes outstanding at once in half-open."""


class RecoverySection(Section):
    """`[managers.X.recovery]`: the way back to primary."""

    hold: Duration = _RECOVERY.hold
    """Least time on secondary; doubles per recent flap, at most an hour."""
    probe_timeout: Span = _RECOVERY.probe_timeout
    """A probe is left after this and its request goes to the other model."""
    gate: int = Field(_RECOVERY.gate, ge=1)
    """Consecutive good probes before traffic returns …"""
    sustain: Duration = _RECOVERY.sustain
    """… spread over at least this long."""
    stages: tuple[Rate, ...] = _RECOVERY.stages
    """Shares of traffic back on primary; increasing, the last is 1.0."""
    stage_for: Duration = _RECOVERY.stage_for
    """Least time in a stage."""
    stage_samples: int = Field(_RECOVERY.stage_samples, ge=1)
    """Good samples on primary before the next stage."""


class SpillSection(Section):
    """`[managers.X.spill]`: how much rate-limited demand may go to the other model."""

    share: float = Field(_SPILL.share, ge=0, le=1)
    """Share of the last minute's requests …"""
    floor: float = Field(_SPILL.floor, ge=0)
    """… plus this many a minute; both divided by the live instances."""


class ValidationSection(Section):
    """`[managers.X.validation]`: what is checked about an answer's meaning."""

    json_schema: bool = _VALIDATION.json_schema
    """Whether an answer that breaks the caller's response schema is a semantic failure."""
    canaries: str = _VALIDATION.canaries
    """A TOML file of prompts with expected properties, run against both models; beside the file."""
    canary_every: Span = _VALIDATION.canary_every
    """How often canaries run."""


class ManagerSection(Section):
    """`[managers.X]`: one pair of models; callers name it as `model`."""

    primary: Name
    """Key of the model that is preferred."""
    secondary: Name
    """Key of the model that takes over."""
    on_rate_limit: OnRateLimit = _MANAGER["on_rate_limit"]
    """After `rate_limit_wait`: `shed`, `spill` a bounded share to the other model, or `failover`."""
    rate_limit_wait: Duration = _MANAGER["rate_limit_wait"]
    """Longest wait for room under a provider's rate limit."""
    on_content_filter: OnContentFilter = _MANAGER["on_content_filter"]
    """A blocked prompt: `surface` it, or `route` it to the other model."""
    on_auth_error: OnAuthError = _MANAGER["on_auth_error"]
    """Refused credentials: `fail` the request, or `route` it to the other model."""
    on_broken_stream: OnBrokenStream = _MANAGER["on_broken_stream"]
    """A stream that breaks after content: `continue` at the other model, or `error`."""
    when_both_open: WhenBothOpen = _MANAGER["when_both_open"]
    """Both breakers open: `fail` with 503 and Retry-After, or `try_anyway`."""
    continuation_instruction: str = _MANAGER["continuation_instruction"]
    """What a model without prefill is told when it goes on where a stream broke; empty: the built-in words."""
    timeouts: TimeoutsSection = TimeoutsSection()
    """The clocks of a call."""
    retry: RetrySection = RetrySection()
    """Retries on the same model."""
    breaker: BreakerSection = BreakerSection()
    """When a breaker opens."""
    recovery: RecoverySection = RecoverySection()
    """The way back to primary."""
    spill: SpillSection = SpillSection()
    """Rate-limited demand on the other model."""
    validation: ValidationSection = ValidationSection()
    """What is checked about an answer's meaning."""


class ReceiverKind(StrEnum):
    """The shapes a notification can be sent in."""

    WEBHOOK = "webhook"
    STANDARD = "standard"
    SLACK = "slack"
    PAGERDUTY = "pagerduty"
    ALERTMANAGER = "alertmanager"
    APPRISE = "apprise"


class ReceiverSection(Section):
    """`[[alerts.receivers]]`: who is told."""

    name: Name
    """Its name in the outbox, metrics and the dashboard."""
    kind: ReceiverKind
    """The shape of what is sent."""
    url: str = ""
    """Where to, when the address holds no secret; for `alertmanager` its base URL."""
    url_env: EnvName = ""
    """Variable with the address."""
    secret_env: EnvName = ""
    """Variable with the signing secret (`whsec_…`); for `pagerduty` the routing key."""
    allow_private: bool = False
    """Whether private and loopback addresses, and plain http, are accepted."""
    matchers: tuple[str, ...] = ()
    """Alertmanager matchers that must all hold, such as `severity=~"critical|warning"`."""


class AlertsSection(Section):
    """`[alerts]`: rules, their evaluation and delivery."""

    rules: str = "alerts.toml"
    """The rule file; a relative path is beside the file."""
    evaluate_every: Span = 15.0
    """Time between two evaluations."""
    group_wait: Duration = 5.0
    """A group's first notification waits this long for company."""
    group_interval: Span = 60.0
    """Least time between two notifications of a group."""
    repeat_interval: Span = parse_duration("4h")
    """A firing group is sent again after this."""
    heartbeat_url_env: EnvName = ""
    """Variable with an address that is called after every evaluation."""
    heartbeat_allow_private: bool = False
    """Whether that address may be private or loopback, and plain http."""
    receivers: tuple[ReceiverSection, ...] = ()
    """Who is told."""


class Settings(Section):
    """The whole file."""

    server: ServerSection = ServerSection()
    """The gateway, the control API and /metrics."""
    dashboard: DashboardSection = DashboardSection()
    """The Streamlit app."""
    store: StoreSection = StoreSection()
    """The flight recorder's database."""
    fleet: FleetSection = FleetSection()
    """How instances agree on the active model."""
    providers: dict[Name, ProviderSection] = Field(default_factory=dict)
    """Accounts at endpoints, by key."""
    models: dict[Name, ModelSection] = Field(default_factory=dict)
    """Models, by key."""
    managers: dict[Name, ManagerSection] = Field(default_factory=dict)
    """Pairs of models, by the name callers use."""
    alerts: AlertsSection = AlertsSection()
    """Rules, their evaluation and delivery."""
