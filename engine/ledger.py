"""How records become rows: the raw rows, their sums by minute and the totals, inside the caller's transaction.

Guarantees: sums and rows never disagree, because both are written here and nowhere else; posting a move of the
active model that another instance has recorded already changes nothing and counts nothing.

What counts where: synthetic requests have rows, and rollups marked as such, but no part in the totals of requests,
attempts and latency; their tokens and cost do count, for they are paid. Latency is that of requests a model was
tried for. Requests and their latency are filed under the minute in which the request finished, attempts under the
minute in which the attempt did.

Every table is written by one statement of many rows instead of one statement a row: each statement gives up the
interpreter lock once, so a busy thread beside the writer delays a batch a handful of times and not once a row.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from types import MappingProxyType

from engine.core.events import (
    AttemptRecord,
    BreakerRecord,
    CanaryRecord,
    FailoverRecord,
    OverrideRecord,
    Record,
    RequestOutcome,
    RequestRecord,
    Scope,
)
from engine.percentiles import bucket_of
from engine.sqlite import Connection

MINUTE_MS = 60_000
UNTRIED = "none"

Key = tuple[str | int | float | None, ...]

TOTALS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "requests": ("manager", "role", "model", "status_code"),
        "attempts": ("manager", "role", "model", "category"),
        "failover_events": ("manager", "from_role", "to_role", "cause"),
        "request_failovers": ("manager", "from_role", "to_role", "cause"),
        "breaker_transitions": ("manager", "role", "from_state", "to_state"),
        "shed": ("manager", "role"),
        "tokens": ("manager", "model", "direction"),
        "cost_usd": ("manager", "model"),
        "notifications": ("receiver", "outcome"),
        "canary_results": ("manager", "role", "model", "result"),
        "records_rejected": (),
    }
)
"""The counters of table `totals` and the labels of each."""


@lru_cache(maxsize=8192)
def labels_of(name: str, *values: str) -> str:
    """The key of one counter in `totals`: its labels as a JSON object, in the order of `TOTALS`."""
    return json.dumps(dict(zip(TOTALS[name], values, strict=True)), separators=(",", ":"))


class Bulk:
    """One INSERT for any number of rows.

    Args:
        table: Where to.
        columns: The columns, in the order of the rows' values.
        tail: What follows the values, such as `ON CONFLICT …`.
    """

    EXACT = 16
    LARGEST = 256

    def __init__(self, table: str, columns: str, tail: str = "") -> None:
        names = columns.split()
        self._head = f"INSERT INTO {table} ({', '.join(names)}) VALUES "  # noqa: S608 - names are this module's
        self._row = f"({', '.join('?' * len(names))})"
        self._tail = tail
        self._statements: dict[int, str] = {}

    def write(self, connection: Connection, rows: Sequence[Key]) -> None:
        """Insert rows; sizes repeat, so that their statements come from the connection's cache."""
        at, left = 0, len(rows)
        while left > self.EXACT:
            size = min(self.LARGEST, 1 << (left.bit_length() - 1))
            connection.execute(self._statement(size), list(chain.from_iterable(rows[at : at + size])))
            at, left = at + size, left - size
        if left == 1:  # under durability `commit` most transactions are one request's
            connection.execute(self._statements.get(1) or self._statement(1), rows[at])
        elif left:
            connection.execute(self._statement(left), list(chain.from_iterable(rows[at:])))

    def _statement(self, size: int) -> str:
        statement = self._statements.get(size)
        if statement is None:
            statement = self._head + ", ".join([self._row] * size) + self._tail
            self._statements[size] = statement
        return statement


class Sum:
    """Adds up values by key, and adds them to what a table holds.

    Args:
        table: The table of sums.
        keys: Its primary key's columns, in the order of `add`'s key.
        sums: The columns that are added to.
    """

    def __init__(self, table: str, keys: str, sums: str) -> None:
        adding = ", ".join(f"{name} = {name} + excluded.{name}" for name in sums.split())
        tail = f" ON CONFLICT ({', '.join(keys.split())}) DO UPDATE SET {adding}"
        self._bulk = Bulk(table, f"{keys} {sums}", tail)

    def write(self, connection: Connection, amounts: Mapping[Key, Sequence[float]]) -> None:
        """Add the amounts to the table."""
        self._bulk.write(connection, [(*key, *values) for key, values in amounts.items()])


_REQUESTS = Bulk(
    "requests",
    "id ts_ms manager instance epoch active_role role model status_code outcome code failover_cause attempts streamed "
    "duration_ms ttft_ms overhead_us input_tokens output_tokens cost_usd finish_reason synthetic prompt_hash",
)
_ATTEMPTS = Bulk(
    "attempts",
    "request_id n ts_ms manager role model status_code category duration_ms waited_ms breaker_state error "
    "input_tokens output_tokens cost_usd usage_estimated synthetic",
)
_CONTENTS = Bulk("contents", "request_id ts_ms prompt_text answer_text")
_FAILOVERS = Bulk(
    "failovers",
    "id ts_ms manager instance scope from_role to_role cause request_id epoch evidence",
    " ON CONFLICT (manager, epoch) WHERE scope = 'active' DO NOTHING ON CONFLICT (id) DO NOTHING",
)
_BREAKERS = Bulk("breaker_transitions", "id ts_ms manager instance role model from_state to_state reason evidence")
_CANARIES = Bulk("canary_results", "id ts_ms manager instance role model canary passed detail request_id duration_ms")
_OVERRIDES = Bulk("overrides", "id ts_ms manager action role strict reason actor expires_ms epoch")

_ROLLUP = Sum(
    "rollup_minute",
    "manager minute role model status_code outcome code failover_cause synthetic",
    "n attempts duration_ms overhead_us input_tokens output_tokens cost_usd",
)
_ATTEMPT_MINUTE = Sum(
    "attempt_minute",
    "manager minute role model category synthetic",
    "n duration_ms input_tokens output_tokens cost_usd",
)
_FAILOVER_MINUTE = Sum("failover_minute", "manager minute scope from_role to_role cause", "n")
_BREAKER_MINUTE = Sum("breaker_minute", "manager minute role from_state to_state", "n")
_LATENCY_MINUTE = Sum("latency_minute", "manager minute metric role model outcome bucket", "n")
_LATENCY_TOTALS = Sum("latency_totals", "manager role model outcome metric bucket", "n sum_ms")
_TOTALS = Sum("totals", "name labels", "value")


class Ledger:
    """Posts records.

    Args:
        prompt_key: The store's key for `prompt_hash`.
        record_content: Whether prompts and answers are stored.
    """

    def __init__(self, prompt_key: bytes, *, record_content: bool = False) -> None:
        self._prompt_key = prompt_key
        self._record_content = record_content

    def post(self, connection: Connection, records: Iterable[Record]) -> None:
        """Write records with their sums; the caller holds the transaction.

        Args:
            connection: Inside `BEGIN IMMEDIATE`.
            records: In the order they happened.

        Raises:
            engine.sqlite.IntegrityError: A record breaks a rule of its table, or its id is recorded already.
        """
        page = _Page(connection, self)
        for record in records:
            if isinstance(record, RequestRecord):
                page.request(record)
            elif isinstance(record, FailoverRecord):
                page.failover(record)
            elif isinstance(record, BreakerRecord):
                page.breaker(record)
            elif isinstance(record, CanaryRecord):
                page.canary(record)
            else:
                page.override(record)
        page.write()

    def prompt_hash(self, text: str | None) -> str | None:
        """HMAC-SHA256 of a prompt, 128 bits in hex: equal prompts are recognised, none can be read back."""
        if text is None:
            return None
        return hmac.digest(self._prompt_key, text.encode("utf-8", "surrogatepass"), "sha256").hex()[:32]

    @property
    def record_content(self) -> bool:
        """Whether prompts and answers are stored."""
        return self._record_content


def add_latency(connection: Connection, metric: str, values_ms: Iterable[float]) -> None:
    """Add observations that belong to no model, such as commits, to the totals.

    Args:
        connection: Inside a transaction.
        metric: Which histogram.
        values_ms: The observations, milliseconds.
    """
    amounts: dict[Key, list[float]] = {}
    for value in values_ms:
        _add(amounts, ("", "", "", "", metric, bucket_of(value)), 1, value)
    _LATENCY_TOTALS.write(connection, amounts)


def keep_calibrations(connection: Connection, ratios: Mapping[str, float]) -> None:
    """Keep what was learned about token estimates, by the provider's name of the model."""
    connection.executemany(
        "INSERT INTO store_meta VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        [(f"calibration/{model}", f"{ratio:.4f}") for model, ratio in ratios.items()],
    )


def add_total(connection: Connection, name: str, values: Sequence[str] = (), amount: float = 1) -> None:
    """Add to one counter.

    Args:
        connection: Inside a transaction.
        name: A key of `TOTALS`.
        values: Its labels' values, in order.
        amount: How much.
    """
    _TOTALS.write(connection, {(name, labels_of(name, *values)): (amount,)})


def _add(amounts: dict[Key, list[float]], key: Key, *values: float) -> None:
    known = amounts.get(key)
    if known is None:
        amounts[key] = list(values)
        return
    for at, value in enumerate(values):
        known[at] += value


class _Page:
    """The rows and sums of one transaction, collected before they are written."""

    def __init__(self, connection: Connection, ledger: Ledger) -> None:
        self._connection = connection
        self._ledger = ledger
        self._requests: list[Key] = []
        self._attempts: list[Key] = []
        self._contents: list[Key] = []
        self._failovers: list[FailoverRecord] = []
        self._breakers: list[Key] = []
        self._overrides: list[Key] = []
        self._canaries: list[Key] = []
        self._rollup: dict[Key, list[float]] = {}
        self._attempt_minute: dict[Key, list[float]] = {}
        self._failover_minute: dict[Key, list[float]] = {}
        self._breaker_minute: dict[Key, list[float]] = {}
        self._latency_minute: dict[Key, list[float]] = {}
        self._latency_totals: dict[Key, list[float]] = {}
        self._totals: dict[Key, list[float]] = {}

    def request(self, record: RequestRecord) -> None:
        """One finished call with its attempts and its own failovers."""
        synthetic = int(record.synthetic)
        outcome = record.outcome.value
        self._requests.append(
            (
                record.id, record.ts_ms, record.manager, record.instance, record.epoch, record.active_role, record.role,
                record.model, record.status_code, outcome, record.code, record.failover_cause, len(record.attempts),
                int(record.streamed), record.duration_ms, record.ttft_ms, record.overhead_us, record.input_tokens,
                record.output_tokens, record.cost_usd, record.finish_reason, synthetic,
                self._ledger.prompt_hash(record.prompt_text),
            )
        )  # fmt: skip
        _add(
            self._rollup,
            (
                record.manager, record.ts_ms // MINUTE_MS, record.role, record.model, record.status_code, outcome,
                record.code or "", record.failover_cause or "", synthetic,
            ),
            1, len(record.attempts), record.duration_ms, record.overhead_us,
            record.input_tokens or 0, record.output_tokens or 0, record.cost_usd or 0.0,
        )  # fmt: skip
        if self._ledger.record_content and (record.prompt_text is not None or record.answer_text is not None):
            self._contents.append(
                (record.id, record.ts_ms, _storable(record.prompt_text), _storable(record.answer_text))
            )
        if not record.synthetic:
            self._count_request(record)
        for attempt in record.attempts:
            self._attempt(record, attempt, synthetic)
        self._usage(record)
        for failover in record.failovers:
            self.failover(failover)

    def failover(self, record: FailoverRecord) -> None:
        """One move; whether it is new is known only when it is written."""
        self._failovers.append(record)

    def breaker(self, record: BreakerRecord) -> None:
        """One breaker transition."""
        self._breakers.append(
            (
                record.id, record.ts_ms, record.manager, record.instance, record.role, record.model, record.from_state,
                record.to_state, record.reason, _json(record.evidence),
            )
        )  # fmt: skip
        minute = record.ts_ms // MINUTE_MS
        _add(self._breaker_minute, (record.manager, minute, record.role, record.from_state, record.to_state), 1)
        self._total("breaker_transitions", 1, record.manager, record.role, record.from_state, record.to_state)

    def override(self, record: OverrideRecord) -> None:
        """One act of an operator."""
        self._overrides.append(
            (
                record.id, record.ts_ms, record.manager, record.action, record.role, int(record.strict), record.reason,
                record.actor, record.expires_ms, record.epoch,
            )
        )  # fmt: skip

    def canary(self, record: CanaryRecord) -> None:
        """One judged answer of a canary; its request and attempts come as any other's."""
        self._canaries.append(
            (
                record.id, record.ts_ms, record.manager, record.instance, record.role, record.model, record.canary,
                int(record.passed), record.detail, record.request_id, record.duration_ms,
            )
        )  # fmt: skip
        result = "passed" if record.passed else "failed"
        self._total("canary_results", 1, record.manager, record.role, record.model, result)

    def write(self) -> None:
        """Everything collected, a statement or a few a table."""
        connection = self._connection
        for bulk, rows in (
            (_OVERRIDES, self._overrides),
            (_REQUESTS, self._requests),
            (_ATTEMPTS, self._attempts),
            (_CONTENTS, self._contents),
            (_BREAKERS, self._breakers),
            (_CANARIES, self._canaries),
        ):
            if rows:
                bulk.write(connection, rows)
        for failover in self._failovers:
            self._write_failover(failover)
        for table, amounts in (
            (_ROLLUP, self._rollup),
            (_ATTEMPT_MINUTE, self._attempt_minute),
            (_FAILOVER_MINUTE, self._failover_minute),
            (_BREAKER_MINUTE, self._breaker_minute),
            (_LATENCY_MINUTE, self._latency_minute),
            (_LATENCY_TOTALS, self._latency_totals),
            (_TOTALS, self._totals),
        ):
            if amounts:
                table.write(connection, amounts)

    def _write_failover(self, record: FailoverRecord) -> None:
        before = self._connection.total_changes
        _FAILOVERS.write(
            self._connection,
            [
                (
                    record.id, record.ts_ms, record.manager, record.instance, record.scope.value, record.from_role,
                    record.to_role, record.cause, record.request_id, record.epoch, _json(record.evidence),
                )
            ],
        )  # fmt: skip
        if self._connection.total_changes == before:
            return
        minute = record.ts_ms // MINUTE_MS
        key = (record.manager, minute, record.scope.value, record.from_role, record.to_role, record.cause)
        _add(self._failover_minute, key, 1)
        name = "failover_events" if record.scope is Scope.ACTIVE else "request_failovers"
        self._total(name, 1, record.manager, record.from_role, record.to_role, record.cause)

    def _count_request(self, record: RequestRecord) -> None:
        self._total("requests", 1, record.manager, record.role, record.model, str(record.status_code))
        if record.outcome is RequestOutcome.SHED:
            role = record.active_role if record.role == UNTRIED else record.role
            self._total("shed", 1, record.manager, role)
        if record.role == UNTRIED:
            return
        for metric, value in (("duration", record.duration_ms), ("ttft", record.ttft_ms)):
            if value is None:
                continue
            bucket = bucket_of(value)
            outcome = record.outcome.value
            minute = record.ts_ms // MINUTE_MS
            _add(
                self._latency_minute,
                (record.manager, minute, metric, record.role, record.model, outcome, bucket),
                1,
            )
            _add(self._latency_totals, (record.manager, record.role, record.model, outcome, metric, bucket), 1, value)

    def _attempt(self, record: RequestRecord, attempt: AttemptRecord, synthetic: int) -> None:
        self._attempts.append(
            (
                record.id, attempt.n, attempt.ts_ms, record.manager, attempt.role, attempt.model, attempt.status_code,
                attempt.category, attempt.duration_ms, attempt.waited_ms, attempt.breaker_state, attempt.error,
                attempt.input_tokens, attempt.output_tokens, attempt.cost_usd, int(attempt.usage_estimated), synthetic,
            )
        )  # fmt: skip
        minute = attempt.ts_ms // MINUTE_MS
        _add(
            self._attempt_minute,
            (record.manager, minute, attempt.role, attempt.model, attempt.category, synthetic),
            1, attempt.duration_ms, attempt.input_tokens or 0, attempt.output_tokens or 0, attempt.cost_usd or 0.0,
        )  # fmt: skip
        if not synthetic:
            self._total("attempts", 1, record.manager, attempt.role, attempt.model, attempt.category)

    def _usage(self, record: RequestRecord) -> None:
        """Tokens and cost by the model that used them; the answering model's where attempts do not say."""
        parts: list[tuple[str, int | None, int | None, float | None]] = [
            (attempt.model, attempt.input_tokens, attempt.output_tokens, attempt.cost_usd)
            for attempt in record.attempts
            if attempt.input_tokens is not None or attempt.output_tokens is not None or attempt.cost_usd is not None
        ]
        if not parts:
            parts = [(record.model, record.input_tokens, record.output_tokens, record.cost_usd)]
        for model, read, written, cost in parts:
            if read:
                self._total("tokens", read, record.manager, model, "input")
            if written:
                self._total("tokens", written, record.manager, model, "output")
            if cost:
                self._total("cost_usd", cost, record.manager, model)

    def _total(self, name: str, amount: float, *values: str) -> None:
        _add(self._totals, (name, labels_of(name, *values)), amount)


def is_audit(record: Record) -> bool:
    """Whether a record must survive a power cut too, and so is worth a sync of the disk."""
    if isinstance(record, FailoverRecord):
        return record.scope is Scope.ACTIVE
    return isinstance(record, (OverrideRecord, BreakerRecord))


def _storable(text: str | None) -> str | None:
    """Text without lone surrogates, which JSON can carry and UTF-8 cannot."""
    return None if text is None else text.encode("utf-8", "replace").decode()


def _json(evidence: Mapping[str, object]) -> str:
    return json.dumps(evidence, separators=(",", ":"), default=str)
