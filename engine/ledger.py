"""How records become rows: what the writer inserts for a group of them, in as few statements as can be.

Guarantees: sums and rows never disagree, because both are written in one transaction, a request's by the very same
statement (`engine.posting`); posting a move of the active model that another instance has recorded already changes
nothing and counts nothing.

Every statement writes many rows: each gives up the interpreter lock once, so a busy thread beside the writer delays
a group a handful of times and not once a row.
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
    RequestRecord,
    Scope,
)
from engine.percentiles import bucket_of
from engine.posting import ATTEMPT, POSTING, POSTING_ATTEMPT
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
        "synthetic": ("manager",),
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
    labels = dict(zip(TOTALS[name], values, strict=True))
    return json.dumps(labels, separators=(",", ":"), ensure_ascii=False)  # as SQLite's json_object writes it


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


_POSTINGS = Bulk("posting", " ".join(POSTING))
_FURTHER = Bulk("posting_attempt", " ".join(POSTING_ATTEMPT))
_CONTENTS = Bulk("contents", "request_id ts_ms prompt_text answer_text")
_FAILOVERS = Bulk(
    "failovers",
    "id ts_ms manager instance scope from_role to_role cause request_id epoch evidence",
    " ON CONFLICT (manager, epoch) WHERE scope = 'active' DO NOTHING ON CONFLICT (id) DO NOTHING",
)
_BREAKERS = Bulk("breaker_transitions", "id ts_ms manager instance role model from_state to_state reason evidence")
_CANARIES = Bulk("canary_results", "id ts_ms manager instance role model canary passed detail request_id duration_ms")
_OVERRIDES = Bulk("overrides", "id ts_ms manager action role strict reason actor expires_ms epoch")

_FAILOVER_MINUTE = Sum("failover_minute", "manager minute scope from_role to_role cause", "n")
_BREAKER_MINUTE = Sum("breaker_minute", "manager minute role from_state to_state", "n")
_LATENCY_TOTALS = Sum("latency_totals", "manager role model outcome metric bucket", "n sum_ms")
_TOTALS = Sum("totals", "name labels", "value")


class Ledger:
    """Posts records.

    Args:
        prompt_key: The store's key for `prompt_hash`.
        record_content: Whether prompts and answers are stored.
    """

    def __init__(self, prompt_key: bytes, *, record_content: bool = False) -> None:
        self._mac = hmac.new(prompt_key, digestmod="sha256")
        self._record_content = record_content

    def post(self, connection: Connection, records: Iterable[Record]) -> None:
        """Write records with their sums; the caller holds the transaction.

        Args:
            connection: A store's writer, inside `BEGIN IMMEDIATE`.
            records: In the order they happened.

        Raises:
            engine.sqlite.IntegrityError: A record breaks a rule of its table, or its id is recorded already.
        """
        self.page(records).write(connection)

    def page(self, records: Iterable[Record]) -> Page:
        """What is to be written for records, in the order they happened."""
        page = Page(self)
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
        return page

    def prompt_hash(self, text: str | None) -> str | None:
        """HMAC-SHA256 of a prompt, 128 bits in hex: equal prompts are recognised, none can be read back."""
        if text is None:
            return None
        mac = self._mac.copy()  # keeps the interpreter lock for short texts, where `hmac.digest` gives it up each time
        mac.update(text.encode("utf-8", "surrogatepass"))
        return mac.hexdigest()[:32]

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


class Page:
    """The rows and sums of one transaction, collected before they are written."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._postings: list[Key] = []
        self._further: list[Key] = []
        self._contents: list[Key] = []
        self._failovers: list[FailoverRecord] = []
        self._breakers: list[Key] = []
        self._overrides: list[Key] = []
        self._canaries: list[Key] = []
        self._failover_minute: dict[Key, list[float]] = {}
        self._breaker_minute: dict[Key, list[float]] = {}
        self._totals: dict[Key, list[float]] = {}

    def request(self, record: RequestRecord) -> None:
        """One finished call with its attempts and its own failovers.

        Members of enumerations become plain texts, which the database library takes without a search for an adapter.
        """
        synthetic = int(record.synthetic)
        counts = not synthetic and record.role != UNTRIED
        ttft, attempts = record.ttft_ms, record.attempts
        self._postings.append(
            (
                record.id, record.ts_ms, record.manager, record.instance, record.epoch, str(record.active_role),
                str(record.role), record.model, record.status_code, str(record.outcome), record.code,
                record.failover_cause, len(attempts), int(record.streamed), record.duration_ms, ttft,
                record.overhead_us, record.input_tokens, record.output_tokens, record.cost_usd, record.finish_reason,
                synthetic,
                self._ledger.prompt_hash(record.prompt_text),
                bucket_of(record.duration_ms) if counts else None,
                bucket_of(ttft) if counts and ttft is not None else None,
                *_rest(record),
                *(_tried(attempts[0]) if attempts else _UNTRIED_ROW),
            )
        )  # fmt: skip
        for attempt in attempts[1:]:
            self._further.append((record.id, record.manager, synthetic, *_tried(attempt)))
        if self._ledger.record_content and (record.prompt_text is not None or record.answer_text is not None):
            self._contents.append(
                (record.id, record.ts_ms, _storable(record.prompt_text), _storable(record.answer_text))
            )
        self._failovers.extend(record.failovers)

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

    @property
    def alone(self) -> bool:
        """Whether it is a single statement, which needs no transaction around it."""
        return len(self._postings) <= Bulk.EXACT and not (
            self._further or self._contents or self._failovers or self._breakers or self._overrides or self._canaries
        )

    def write(self, connection: Connection) -> None:
        """Everything collected, a statement or a few a table."""
        for bulk, rows in (
            (_OVERRIDES, self._overrides),
            (_POSTINGS, self._postings),
            (_FURTHER, self._further),
            (_CONTENTS, self._contents),
            (_BREAKERS, self._breakers),
            (_CANARIES, self._canaries),
        ):
            if rows:
                bulk.write(connection, rows)
        for failover in self._failovers:
            self._write_failover(connection, failover)
        for table, amounts in (
            (_FAILOVER_MINUTE, self._failover_minute),
            (_BREAKER_MINUTE, self._breaker_minute),
            (_TOTALS, self._totals),
        ):
            if amounts:
                table.write(connection, amounts)

    def _write_failover(self, connection: Connection, record: FailoverRecord) -> None:
        before = connection.total_changes
        _FAILOVERS.write(
            connection,
            [
                (
                    record.id, record.ts_ms, record.manager, record.instance, record.scope.value, record.from_role,
                    record.to_role, record.cause, record.request_id, record.epoch, _json(record.evidence),
                )
            ],
        )  # fmt: skip
        if connection.total_changes == before:
            return
        minute = record.ts_ms // MINUTE_MS
        key = (record.manager, minute, record.scope.value, record.from_role, record.to_role, record.cause)
        _add(self._failover_minute, key, 1)
        name = "failover_events" if record.scope is Scope.ACTIVE else "request_failovers"
        self._total(name, 1, record.manager, record.from_role, record.to_role, record.cause)

    def _total(self, name: str, amount: float, *values: str) -> None:
        _add(self._totals, (name, labels_of(name, *values)), amount)


_UNTRIED_ROW: Key = (None,) * len(ATTEMPT)


def _tried(attempt: AttemptRecord) -> Key:
    return (
        attempt.n, attempt.ts_ms, str(attempt.role), attempt.model, attempt.status_code, str(attempt.category),
        attempt.duration_ms, attempt.waited_ms, str(attempt.breaker_state), attempt.error, attempt.input_tokens,
        attempt.output_tokens, attempt.cost_usd, int(attempt.usage_estimated),
    )  # fmt: skip


def _rest(record: RequestRecord) -> Key:
    """Tokens and cost of a request none of whose attempts says its own."""
    for one in record.attempts:
        if one.input_tokens is not None or one.output_tokens is not None or one.cost_usd is not None:
            return (None, None, None)
    return (record.input_tokens, record.output_tokens, record.cost_usd)


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
