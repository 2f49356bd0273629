"""What a request's record becomes in the database, said once and in SQL: its rows, and every sum they belong to.

The writer inserts a request with its first attempt into the view `posting`, further attempts into `posting_attempt`.
The views hold nothing; their triggers write the rows and add to the sums by minute and since the beginning. So rows
and sums cannot disagree, and a commit is one statement that gives up the interpreter lock once. With a statement for
every table, a busy event loop beside the writer was interrupted ten times for each commit, at a third of its speed.

Views and triggers are temporary: they belong to the writer's connection and not to the file, and change with the code.

What counts where: synthetic requests have rows, and rollups marked as such, but no part in the totals of requests,
attempts and latency; their tokens and cost do count, for they are paid. A total of their own counts rows of both
sorts, so that whoever keeps sums notices every late one. Latency is that of requests a model was tried for. Requests
and their latency are filed under the minute in which the request finished, attempts under the minute in which the
attempt did.

Whatever is written takes its hour off the list of those that are rolled up, see `engine.hours`. It is a look at one
small index and nearly always finds nothing, for the hour a record belongs to is not over yet.
"""

from __future__ import annotations

from engine.sqlite import Connection

REQUEST = (
    "id", "ts_ms", "manager", "instance", "epoch", "active_role", "role", "model", "status_code", "outcome", "code",
    "failover_cause", "attempts", "streamed", "duration_ms", "ttft_ms", "overhead_us", "input_tokens", "output_tokens",
    "cost_usd", "finish_reason", "synthetic", "prompt_hash",
)  # fmt: skip
"""The columns of `requests`, in the order of a posting's values."""

DERIVED = ("duration_bucket", "ttft_bucket", "rest_input", "rest_output", "rest_cost")
"""What a posting says beside its row: the buckets of its latencies, `NULL` where they do not count; and tokens and
cost that no attempt accounts for, which go to the model of the request."""

ATTEMPT = (
    "try_n", "try_ts_ms", "try_role", "try_model", "try_status_code", "try_category", "try_duration_ms",
    "try_waited_ms", "try_breaker_state", "try_error", "try_input_tokens", "try_output_tokens", "try_cost_usd",
    "try_usage_estimated",
)  # fmt: skip
"""One attempt; all `NULL` where nothing was tried."""

POSTING = (*REQUEST, *DERIVED, *ATTEMPT)
POSTING_ATTEMPT = ("id", "manager", "synthetic", *ATTEMPT)

_ATTEMPT_SQL = """
INSERT INTO attempts (
    request_id, n, ts_ms, manager, role, model, status_code, category, duration_ms, waited_ms, breaker_state, error,
    input_tokens, output_tokens, cost_usd, usage_estimated, synthetic)
SELECT
    NEW.id, NEW.try_n, NEW.try_ts_ms, NEW.manager, NEW.try_role, NEW.try_model, NEW.try_status_code, NEW.try_category,
    NEW.try_duration_ms, NEW.try_waited_ms, NEW.try_breaker_state, NEW.try_error,
    NEW.try_input_tokens, NEW.try_output_tokens, NEW.try_cost_usd, NEW.try_usage_estimated, NEW.synthetic
WHERE NEW.try_n IS NOT NULL;

INSERT INTO attempt_minute (
    manager, minute, role, model, category, synthetic, n, duration_ms, input_tokens, output_tokens, cost_usd)
SELECT
    NEW.manager, NEW.try_ts_ms / 60000, NEW.try_role, NEW.try_model, NEW.try_category, NEW.synthetic,
    1, NEW.try_duration_ms, ifnull(NEW.try_input_tokens, 0), ifnull(NEW.try_output_tokens, 0),
    ifnull(NEW.try_cost_usd, 0.0)
WHERE NEW.try_n IS NOT NULL
ON CONFLICT (manager, minute, role, model, category, synthetic) DO UPDATE SET
    n = n + 1, duration_ms = duration_ms + excluded.duration_ms, input_tokens = input_tokens + excluded.input_tokens,
    output_tokens = output_tokens + excluded.output_tokens, cost_usd = cost_usd + excluded.cost_usd;

INSERT INTO totals (name, labels, value)
SELECT 'attempts',
    json_object('manager', NEW.manager, 'role', NEW.try_role, 'model', NEW.try_model, 'category', NEW.try_category), 1
WHERE NEW.try_n IS NOT NULL AND NOT NEW.synthetic
ON CONFLICT (name, labels) DO UPDATE SET value = value + 1;

INSERT INTO totals (name, labels, value)
SELECT 'synthetic', json_object('manager', NEW.manager), 1 WHERE NEW.try_n IS NOT NULL AND NEW.synthetic
ON CONFLICT (name, labels) DO UPDATE SET value = value + 1;

INSERT INTO totals (name, labels, value)
SELECT 'tokens', json_object('manager', NEW.manager, 'model', NEW.try_model, 'direction', 'input'), NEW.try_input_tokens
WHERE NEW.try_input_tokens > 0
ON CONFLICT (name, labels) DO UPDATE SET value = value + excluded.value;

INSERT INTO totals (name, labels, value)
SELECT 'tokens', json_object('manager', NEW.manager, 'model', NEW.try_model, 'direction', 'output'),
    NEW.try_output_tokens
WHERE NEW.try_output_tokens > 0
ON CONFLICT (name, labels) DO UPDATE SET value = value + excluded.value;

INSERT INTO totals (name, labels, value)
SELECT 'cost_usd', json_object('manager', NEW.manager, 'model', NEW.try_model), NEW.try_cost_usd
WHERE NEW.try_cost_usd > 0
ON CONFLICT (name, labels) DO UPDATE SET value = value + excluded.value;
"""

_LATENCY_SQL = """
INSERT INTO latency_minute (manager, minute, metric, role, model, outcome, bucket, n)
SELECT NEW.manager, NEW.ts_ms / 60000, '{metric}', NEW.role, NEW.model, NEW.outcome, NEW.{metric}_bucket, 1
WHERE NEW.{metric}_bucket IS NOT NULL
ON CONFLICT (manager, minute, metric, role, model, outcome, bucket) DO UPDATE SET n = n + 1;

INSERT INTO latency_totals (manager, role, model, outcome, metric, bucket, n, sum_ms)
SELECT NEW.manager, NEW.role, NEW.model, NEW.outcome, '{metric}', NEW.{metric}_bucket, 1, NEW.{metric}_ms
WHERE NEW.{metric}_bucket IS NOT NULL
ON CONFLICT (manager, role, model, outcome, metric, bucket) DO UPDATE SET n = n + 1, sum_ms = sum_ms + excluded.sum_ms;
"""

_REST_SQL = """
INSERT INTO totals (name, labels, value)
SELECT 'tokens', json_object('manager', NEW.manager, 'model', NEW.model, 'direction', 'input'), NEW.rest_input
WHERE NEW.rest_input > 0
ON CONFLICT (name, labels) DO UPDATE SET value = value + excluded.value;

INSERT INTO totals (name, labels, value)
SELECT 'tokens', json_object('manager', NEW.manager, 'model', NEW.model, 'direction', 'output'), NEW.rest_output
WHERE NEW.rest_output > 0
ON CONFLICT (name, labels) DO UPDATE SET value = value + excluded.value;

INSERT INTO totals (name, labels, value)
SELECT 'cost_usd', json_object('manager', NEW.manager, 'model', NEW.model), NEW.rest_cost
WHERE NEW.rest_cost > 0
ON CONFLICT (name, labels) DO UPDATE SET value = value + excluded.value;
"""

_REQUEST_SQL = f"""
INSERT INTO requests ({", ".join(REQUEST)}) VALUES ({", ".join(f"NEW.{name}" for name in REQUEST)});

INSERT INTO rollup_minute (
    manager, minute, role, model, status_code, outcome, code, failover_cause, synthetic,
    n, attempts, duration_ms, overhead_us, input_tokens, output_tokens, cost_usd)
VALUES (
    NEW.manager, NEW.ts_ms / 60000, NEW.role, NEW.model, NEW.status_code, NEW.outcome, ifnull(NEW.code, ''),
    ifnull(NEW.failover_cause, ''), NEW.synthetic, 1, NEW.attempts, NEW.duration_ms, NEW.overhead_us,
    ifnull(NEW.input_tokens, 0), ifnull(NEW.output_tokens, 0), ifnull(NEW.cost_usd, 0.0))
ON CONFLICT (manager, minute, role, model, status_code, outcome, code, failover_cause, synthetic) DO UPDATE SET
    n = n + 1, attempts = attempts + excluded.attempts, duration_ms = duration_ms + excluded.duration_ms,
    overhead_us = overhead_us + excluded.overhead_us, input_tokens = input_tokens + excluded.input_tokens,
    output_tokens = output_tokens + excluded.output_tokens, cost_usd = cost_usd + excluded.cost_usd;

INSERT INTO totals (name, labels, value)
SELECT 'requests', json_object(
    'manager', NEW.manager, 'role', NEW.role, 'model', NEW.model, 'status_code', CAST(NEW.status_code AS TEXT)), 1
WHERE NOT NEW.synthetic
ON CONFLICT (name, labels) DO UPDATE SET value = value + 1;

INSERT INTO totals (name, labels, value)
SELECT 'synthetic', json_object('manager', NEW.manager), 1 WHERE NEW.synthetic
ON CONFLICT (name, labels) DO UPDATE SET value = value + 1;

INSERT INTO totals (name, labels, value)
SELECT 'shed', json_object('manager', NEW.manager, 'role', iif(NEW.role = 'none', NEW.active_role, NEW.role)), 1
WHERE NEW.outcome = 'shed' AND NOT NEW.synthetic
ON CONFLICT (name, labels) DO UPDATE SET value = value + 1;
"""  # noqa: S608 - the names are this module's

_LATE_SQL = """
DELETE FROM rolled_hours WHERE manager = NEW.manager
    AND hour >= min(NEW.ts_ms, ifnull(NEW.try_ts_ms, NEW.ts_ms)) / 3600000 AND hour <= NEW.ts_ms / 3600000;
"""
_LATE_ATTEMPT_SQL = "DELETE FROM rolled_hours WHERE manager = NEW.manager AND hour = NEW.try_ts_ms / 3600000;"
_LATE_EVENT_SQL = "DELETE FROM rolled_hours WHERE manager = NEW.manager AND hour = NEW.ts_ms / 3600000;"


def prepare(connection: Connection) -> None:
    """Give the writer's connection its views; nothing of it reaches the file.

    Args:
        connection: One that may write, of a store whose tables are of this version.
    """
    connection.execute("PRAGMA temp_store = MEMORY")
    request = _REQUEST_SQL + _LATENCY_SQL.format(metric="duration") + _LATENCY_SQL.format(metric="ttft") + _REST_SQL
    _view(connection, "posting", POSTING, request + _ATTEMPT_SQL + _LATE_SQL)
    _view(connection, "posting_attempt", POSTING_ATTEMPT, _ATTEMPT_SQL + _LATE_ATTEMPT_SQL)
    for table in ("failovers", "breaker_transitions"):
        connection.execute(f"CREATE TEMP TRIGGER {table}_hour AFTER INSERT ON main.{table} BEGIN {_LATE_EVENT_SQL} END")


def _view(connection: Connection, name: str, columns: tuple[str, ...], statements: str) -> None:
    connection.execute(f"CREATE TEMP VIEW {name} AS SELECT {', '.join(f'NULL AS {column}' for column in columns)}")
    connection.execute(f"CREATE TEMP TRIGGER {name}_rows INSTEAD OF INSERT ON {name} BEGIN {statements} END")
