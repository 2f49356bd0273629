"""Filling a store, a day of requests at a time; see the package's docstring."""

from __future__ import annotations

import random
from pathlib import Path

from engine import hours
from engine.sqlite import Connection, sqlite3
from engine.store import Store
from tests.largestore import events
from tests.largestore.kinds import KINDS, drawn
from tests.largestore.shape import BUSY, INSTANCES, SPARE, Chunk, Phase, Shape, Stretch

SPARE_EVERY = 8
"""One request in so many is the spare manager's."""

_TEMPORARY = """
CREATE TEMP TABLE kind (
    kind INTEGER PRIMARY KEY, role, model, status_code, outcome, code, cause, attempts, streamed, duration_ms, ttft_ms,
    overhead_us, input_tokens, output_tokens, cost_usd, finish_reason, synthetic, prompt_hash, duration_bucket,
    ttft_bucket, moved, label, speed);
CREATE TEMP TABLE try (
    kind, n, before_ms, role, model, status_code, category, duration_ms, waited_ms, breaker_state, error, input_tokens,
    output_tokens, cost_usd, usage_estimated, synthetic, PRIMARY KEY (kind, n)) WITHOUT ROWID;
CREATE TEMP TABLE tally (manager, kind, n);
CREATE TEMP TABLE stage (i INTEGER PRIMARY KEY, id, ts_ms, manager, kind, epoch, active);
"""

_STAGE = """
WITH RECURSIVE place (i) AS (
    SELECT :first UNION ALL SELECT i + 1 FROM place WHERE i + 1 < :last)
INSERT INTO stage
SELECT :base + i,
    printf('%08x-%04x-7%03x-8%03x-%012x', ts_ms >> 16, ts_ms & 65535, i & 4095, i >> 12 & 4095, :base + i),
    ts_ms, :manager, kind, :epoch, :active
FROM (SELECT i, :start_ms + i * :span_ms / :requests AS ts_ms,
        :kinds + (i * 2654435761 >> 9 & :mask) AS kind FROM place)
WHERE (i % :every = 0) = :spare
"""

_ROWS = (
    """
    INSERT INTO requests (
        id, ts_ms, manager, instance, epoch, active_role, role, model, status_code, outcome, code, failover_cause,
        attempts, streamed, duration_ms, ttft_ms, overhead_us, input_tokens, output_tokens, cost_usd, finish_reason,
        synthetic, prompt_hash)
    SELECT id, ts_ms, manager, iif(i & 1, :one, :two), epoch, active, k.role, k.model, k.status_code, k.outcome, k.code,
        k.cause, k.attempts, k.streamed, k.duration_ms, k.ttft_ms, k.overhead_us, k.input_tokens, k.output_tokens,
        k.cost_usd, k.finish_reason, k.synthetic, k.prompt_hash
    FROM stage CROSS JOIN kind AS k ON k.kind = stage.kind
    """,
    """
    INSERT INTO attempts (
        request_id, n, ts_ms, manager, role, model, status_code, category, duration_ms, waited_ms, breaker_state, error,
        input_tokens, output_tokens, cost_usd, usage_estimated, synthetic)
    SELECT id, t.n, ts_ms - t.before_ms, manager, t.role, t.model, t.status_code, t.category, t.duration_ms,
        t.waited_ms, t.breaker_state, t.error, t.input_tokens, t.output_tokens, t.cost_usd, t.usage_estimated,
        t.synthetic
    FROM stage CROSS JOIN try AS t ON t.kind = stage.kind
    """,
    """
    INSERT INTO failovers (
        id, ts_ms, manager, instance, scope, from_role, to_role, cause, request_id, epoch, evidence)
    SELECT 'f' || substr(id, 2), ts_ms, manager, iif(i & 1, :one, :two), 'request', 'primary', 'secondary', k.cause, id,
        epoch, '{"category":"' || k.cause || '"}'
    FROM stage CROSS JOIN kind AS k ON k.kind = stage.kind AND k.moved
    """,
    """
    INSERT INTO rollup_minute (
        manager, minute, role, model, status_code, outcome, code, failover_cause, synthetic, n, attempts, duration_ms,
        overhead_us, input_tokens, output_tokens, cost_usd)
    SELECT manager, ts_ms / 60000 AS minute, k.role, k.model, k.status_code, k.outcome, ifnull(k.code, ''),
        ifnull(k.cause, ''), k.synthetic, count(*), sum(k.attempts), sum(k.duration_ms), sum(k.overhead_us),
        total(k.input_tokens), total(k.output_tokens), total(k.cost_usd)
    FROM stage CROSS JOIN kind AS k ON k.kind = stage.kind
    GROUP BY manager, minute, k.label
    """,
    """
    INSERT INTO attempt_minute (
        manager, minute, role, model, category, synthetic, n, duration_ms, input_tokens, output_tokens, cost_usd)
    SELECT manager, (ts_ms - t.before_ms) / 60000 AS minute, t.role, t.model, t.category, t.synthetic, count(*),
        sum(t.duration_ms), total(t.input_tokens), total(t.output_tokens), total(t.cost_usd)
    FROM stage CROSS JOIN try AS t ON t.kind = stage.kind
    GROUP BY manager, minute, t.role, t.model, t.category, t.synthetic
    ON CONFLICT (manager, minute, role, model, category, synthetic) DO UPDATE SET
        n = n + excluded.n, duration_ms = duration_ms + excluded.duration_ms,
        input_tokens = input_tokens + excluded.input_tokens, output_tokens = output_tokens + excluded.output_tokens,
        cost_usd = cost_usd + excluded.cost_usd
    """,
    """
    INSERT INTO latency_minute (manager, minute, metric, role, model, outcome, bucket, n)
    SELECT manager, ts_ms / 60000 AS minute, 'duration', k.role, k.model, k.outcome, k.duration_bucket, count(*)
    FROM stage CROSS JOIN kind AS k ON k.kind = stage.kind AND k.duration_bucket IS NOT NULL
    GROUP BY manager, minute, k.speed, k.duration_bucket
    """,
    """
    INSERT INTO latency_minute (manager, minute, metric, role, model, outcome, bucket, n)
    SELECT manager, ts_ms / 60000 AS minute, 'ttft', k.role, k.model, k.outcome, k.ttft_bucket, count(*)
    FROM stage CROSS JOIN kind AS k ON k.kind = stage.kind AND k.ttft_bucket IS NOT NULL
    GROUP BY manager, minute, k.speed, k.ttft_bucket
    """,
    "INSERT INTO tally SELECT manager, kind, count(*) FROM stage GROUP BY manager, kind",
    """
    INSERT INTO totals
    SELECT 'shed', json_object('manager', manager, 'role', iif(k.role = 'none', active, k.role)), count(*)
    FROM stage CROSS JOIN kind AS k ON k.kind = stage.kind AND k.outcome = 'shed' AND NOT k.synthetic
    GROUP BY 2 ON CONFLICT (name, labels) DO UPDATE SET value = value + excluded.value
    """,
)  # fmt: skip

_SUMS = (
    *(
        f"""
        INSERT INTO latency_totals (manager, role, model, outcome, metric, bucket, n, sum_ms)
        SELECT manager, k.role, k.model, k.outcome, '{metric}', k.{metric}_bucket, sum(found.n),
            sum(found.n * k.{metric}_ms)
        FROM (SELECT manager, kind, sum(n) AS n FROM tally GROUP BY manager, kind) AS found
        CROSS JOIN kind AS k ON k.kind = found.kind AND k.{metric}_bucket IS NOT NULL
        GROUP BY manager, k.role, k.model, k.outcome, k.{metric}_bucket
        """
        for metric in ("duration", "ttft")
    ),
    """
    INSERT INTO failover_minute (manager, minute, scope, from_role, to_role, cause, n)
    SELECT manager, ts_ms / 60000 AS minute, scope, from_role, to_role, cause, count(*) FROM failovers
    GROUP BY manager, minute, scope, from_role, to_role, cause
    """,
    """
    INSERT INTO breaker_minute (manager, minute, role, from_state, to_state, n)
    SELECT manager, ts_ms / 60000 AS minute, role, from_state, to_state, count(*) FROM breaker_transitions
    GROUP BY manager, minute, role, from_state, to_state
    """,
    """
    INSERT INTO totals
    SELECT 'requests', json_object('manager', manager, 'role', role, 'model', model,
        'status_code', CAST(status_code AS TEXT)), sum(n)
    FROM rollup_minute WHERE NOT synthetic GROUP BY 2
    """,
    """
    INSERT INTO totals
    SELECT 'attempts', json_object('manager', manager, 'role', role, 'model', model, 'category', category), sum(n)
    FROM attempt_minute WHERE NOT synthetic GROUP BY 2
    """,
    """
    INSERT INTO totals
    SELECT 'synthetic', json_object('manager', manager), sum(n)
    FROM (SELECT manager, n FROM rollup_minute WHERE synthetic
        UNION ALL SELECT manager, n FROM attempt_minute WHERE synthetic) GROUP BY 2
    """,
    *(
        f"""
        INSERT INTO totals
        SELECT 'tokens', json_object('manager', manager, 'model', model, 'direction', '{direction}'),
            sum({direction}_tokens) AS found
        FROM attempt_minute GROUP BY 2 HAVING found > 0
        """
        for direction in ("input", "output")
    ),
    """
    INSERT INTO totals
    SELECT 'cost_usd', json_object('manager', manager, 'model', model), sum(cost_usd) AS found
    FROM attempt_minute GROUP BY 2 HAVING found > 0
    """,
    """
    INSERT INTO totals
    SELECT iif(scope = 'active', 'failover_events', 'request_failovers'),
        json_object('manager', manager, 'from_role', from_role, 'to_role', to_role, 'cause', cause), sum(n)
    FROM failover_minute GROUP BY 1, 2
    """,
    """
    INSERT INTO totals
    SELECT 'breaker_transitions',
        json_object('manager', manager, 'role', role, 'from_state', from_state, 'to_state', to_state), sum(n)
    FROM breaker_minute GROUP BY 2
    """,
    """
    INSERT INTO totals
    SELECT 'canary_results',
        json_object('manager', manager, 'role', role, 'model', model, 'result', iif(passed, 'passed', 'failed')),
        count(*)
    FROM canary_results GROUP BY 2
    """,
    """
    INSERT INTO totals
    SELECT 'notifications', json_object('receiver', receiver, 'outcome', state), count(*)
    FROM outbox WHERE state IN ('delivered', 'dead') GROUP BY 2
    """,
)


def fill(path: Path, shape: Shape) -> Store:
    """Make a store of a shape; it is complete and on the disk when this returns.

    Args:
        path: A file that does not exist yet.
        shape: How large it is and when it ends.
    """
    store = Store(path).open()
    connection = sqlite3.connect(path, isolation_level=None)
    for pragma in ("journal_mode = OFF", "synchronous = OFF", "locking_mode = EXCLUSIVE", "cache_size = -400000"):
        connection.execute(f"PRAGMA {pragma}").fetchall()
    triggers = _without_triggers(connection)
    _prepare(connection)
    stretches, base = shape.stretches(), 0
    for chunk in shape.chunks():
        connection.execute("BEGIN")
        _post(connection, chunk, stretches, base)
        connection.execute("COMMIT")
        base += chunk.requests
    connection.execute("BEGIN")
    events.write(connection, shape)
    for statement in _SUMS:
        connection.execute(statement)
    for statement in triggers:
        connection.execute(statement)
    for manager, hour in hours.due(connection, shape.end_ms):
        hours.roll_up(connection, manager, hour)
    connection.execute("COMMIT")
    connection.execute("PRAGMA locking_mode = NORMAL").fetchall()
    connection.execute("PRAGMA journal_mode = WAL").fetchall()
    connection.close()
    return store


def _without_triggers(connection: Connection) -> list[str]:
    """Drop the tables' triggers, which would run for every row; gives the statements that make them again."""
    found = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
    for name, _ in found:
        connection.execute(f"DROP TRIGGER {name}")
    return [sql for _, sql in found]


def _prepare(connection: Connection) -> None:
    for statement in _TEMPORARY.strip().rstrip(";").split(";"):
        connection.execute(statement)
    kinds, tries = drawn(random.Random(5))
    connection.execute("BEGIN")
    connection.executemany(f"INSERT INTO kind VALUES ({', '.join('?' * len(kinds[0]))})", kinds)
    connection.executemany(f"INSERT INTO try VALUES ({', '.join('?' * len(tries[0]))})", tries)
    connection.execute("COMMIT")


def _post(connection: Connection, chunk: Chunk, stretches: list[Stretch], base: int) -> None:
    """The requests of a chunk, with their sums."""
    connection.execute("DELETE FROM stage")
    for stretch in stretches:
        first, last = chunk.first_at(stretch.start_ms), min(chunk.first_at(stretch.end_ms), chunk.requests)
        if first >= last:
            continue
        for manager, phase, epoch, active in (
            (BUSY, stretch.phase, stretch.epoch, stretch.active),
            (SPARE, Phase.CALM, 1, "primary"),
        ):
            connection.execute(
                _STAGE,
                {
                    "first": first, "last": last, "base": base, "manager": manager, "epoch": epoch, "active": active,
                    "start_ms": chunk.start_ms, "span_ms": chunk.end_ms - chunk.start_ms, "requests": chunk.requests,
                    "kinds": phase * KINDS, "mask": KINDS - 1, "every": SPARE_EVERY, "spare": int(manager == SPARE),
                },
            )  # fmt: skip
    for statement in _ROWS:
        values = {"one": INSTANCES[0], "two": INSTANCES[1]} if ":one" in statement else {}
        connection.execute(statement, values)
