"""The tables of the store, as migrations.

Every table is STRICT, times are integer milliseconds UTC (`*_ms`), ids are UUIDv7 text and enums are CHECKed.
Tables that are read in the order things were written carry `seq`, because wall time may step.

The words in the CHECKs are written out and not taken from the enums of `engine.core`: a migration is history and
must not change when an enum grows. A test holds the two together.

Rows and their sums: `rollup_minute` (requests), `attempt_minute`, `failover_minute`, `breaker_minute` and
`latency_minute` hold sums by minute, `totals` and `latency_totals` sums since the beginning. `engine.ledger` writes
them in the transaction of the rows they sum. The tables `*_hour` hold the same by the hour, see `engine.hours`.
"""

from __future__ import annotations

import secrets
from types import ModuleType
from typing import TYPE_CHECKING

from engine.lean import without
from engine.sqlite import Connection

if TYPE_CHECKING:
    import sqlite_utils

SCHEMA_VERSION = 3
"""Kept in `PRAGMA user_version`; raise it with every migration, so that an older Switchgear refuses the file."""

APPLICATION_ID = 0x53574752
"""`SWGR`, kept in `PRAGMA application_id`: tells our file from another program's."""

ROLES = ("primary", "secondary")
OUTCOMES = ("ok", "error", "cancelled", "shed")
CATEGORIES = (
    "ok", "server_error", "timeout", "connection", "rate_limited", "quota_exhausted", "auth", "invalid_request",
    "model_unavailable", "context_length", "content_filter", "semantic", "truncated", "cancelled",
)  # fmt: skip
CAUSES = (
    "server_error", "connection", "timeout", "truncated", "semantic", "rate_limited", "quota_exhausted", "auth",
    "content_filter", "context_length", "capability", "model_unavailable", "breaker_open", "quorum", "canary",
    "override", "failback", "probe", "ramp",
)  # fmt: skip
BREAKER_STATES = ("closed", "open", "half_open", "forced_open", "forced_closed")
SCOPES = ("request", "active")
ALERT_STATES = ("inactive", "pending", "firing", "resolved")
OUTBOX_STATES = ("pending", "leased", "delivered", "dead", "cancelled")


def _one_of(column: str, words: tuple[str, ...]) -> str:
    """A CHECK that a column holds one of these words, or NULL.

    Written as a chain of comparisons: for `IN` with more than two words SQLite builds a temporary index at every
    insert, which doubled the cost of a request's row.
    """
    return f"CHECK ({column} IS NULL OR {' OR '.join(f'{column} = {word!r}' for word in words)})"


_TRAFFIC = f"""
CREATE TABLE requests (
    id TEXT PRIMARY KEY,
    ts_ms INTEGER NOT NULL,
    manager TEXT NOT NULL,
    instance TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    active_role TEXT NOT NULL {_one_of("active_role", ROLES)},
    role TEXT NOT NULL {_one_of("role", (*ROLES, "none"))},
    model TEXT NOT NULL,
    status_code INTEGER NOT NULL,
    outcome TEXT NOT NULL {_one_of("outcome", OUTCOMES)},
    code TEXT,
    failover_cause TEXT {_one_of("failover_cause", CAUSES)},
    attempts INTEGER NOT NULL CHECK (attempts >= 0),
    streamed INTEGER NOT NULL CHECK (streamed IN (0, 1)),
    duration_ms REAL NOT NULL,
    ttft_ms REAL,
    overhead_us INTEGER NOT NULL,
    input_tokens INTEGER,
    output_tokens INTEGER,
    cost_usd REAL,
    finish_reason TEXT,
    synthetic INTEGER NOT NULL CHECK (synthetic IN (0, 1)),
    prompt_hash TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX requests_by_manager ON requests (manager, ts_ms);

CREATE TABLE attempts (
    request_id TEXT NOT NULL,
    n INTEGER NOT NULL,
    ts_ms INTEGER NOT NULL,
    manager TEXT NOT NULL,
    role TEXT NOT NULL {_one_of("role", ROLES)},
    model TEXT NOT NULL,
    status_code INTEGER,
    category TEXT NOT NULL {_one_of("category", CATEGORIES)},
    duration_ms REAL NOT NULL,
    waited_ms REAL NOT NULL,
    breaker_state TEXT NOT NULL {_one_of("breaker_state", BREAKER_STATES)},
    error TEXT,
    input_tokens INTEGER,
    output_tokens INTEGER,
    cost_usd REAL,
    usage_estimated INTEGER NOT NULL CHECK (usage_estimated IN (0, 1)),
    synthetic INTEGER NOT NULL CHECK (synthetic IN (0, 1)),
    PRIMARY KEY (request_id, n)
) STRICT, WITHOUT ROWID;
CREATE INDEX attempts_by_manager ON attempts (manager, ts_ms);

CREATE TABLE contents (
    request_id TEXT PRIMARY KEY,
    ts_ms INTEGER NOT NULL,
    prompt_text TEXT,
    answer_text TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX contents_by_time ON contents (ts_ms);
"""

_EVENTS = f"""
CREATE TABLE failovers (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    ts_ms INTEGER NOT NULL,
    manager TEXT NOT NULL,
    instance TEXT NOT NULL,
    scope TEXT NOT NULL {_one_of("scope", SCOPES)},
    from_role TEXT NOT NULL {_one_of("from_role", ROLES)},
    to_role TEXT NOT NULL {_one_of("to_role", ROLES)},
    cause TEXT NOT NULL {_one_of("cause", CAUSES)},
    request_id TEXT,
    epoch INTEGER NOT NULL,
    evidence TEXT NOT NULL CHECK (json_valid(evidence))
) STRICT;
CREATE UNIQUE INDEX failovers_once ON failovers (manager, epoch) WHERE scope = 'active';
CREATE INDEX failovers_by_manager ON failovers (manager, scope, ts_ms);
CREATE INDEX failovers_by_time ON failovers (ts_ms);
CREATE INDEX failovers_by_request ON failovers (request_id) WHERE request_id IS NOT NULL;

CREATE TABLE breaker_transitions (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    ts_ms INTEGER NOT NULL,
    manager TEXT NOT NULL,
    instance TEXT NOT NULL,
    role TEXT NOT NULL {_one_of("role", ROLES)},
    model TEXT NOT NULL,
    from_state TEXT NOT NULL {_one_of("from_state", BREAKER_STATES)},
    to_state TEXT NOT NULL {_one_of("to_state", BREAKER_STATES)},
    reason TEXT NOT NULL,
    evidence TEXT NOT NULL CHECK (json_valid(evidence))
) STRICT;
CREATE INDEX breaker_transitions_by_manager ON breaker_transitions (manager, ts_ms);
CREATE INDEX breaker_transitions_by_time ON breaker_transitions (ts_ms);

CREATE TABLE overrides (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    ts_ms INTEGER NOT NULL,
    manager TEXT NOT NULL,
    action TEXT NOT NULL CHECK (length(action) > 0),
    role TEXT {_one_of("role", ROLES)},
    strict INTEGER NOT NULL CHECK (strict IN (0, 1)),
    reason TEXT NOT NULL,
    actor TEXT NOT NULL CHECK (length(actor) > 0),
    expires_ms INTEGER,
    epoch INTEGER NOT NULL
) STRICT;
CREATE INDEX overrides_by_manager ON overrides (manager, ts_ms);
CREATE TRIGGER overrides_are_not_changed BEFORE UPDATE ON overrides
    BEGIN SELECT RAISE(ABORT, 'overrides is append-only: record another act instead of changing one'); END;
CREATE TRIGGER overrides_are_not_deleted BEFORE DELETE ON overrides
    BEGIN SELECT RAISE(ABORT, 'overrides is append-only: acts are never deleted'); END;
CREATE TRIGGER overrides_are_not_replaced BEFORE INSERT ON overrides
    WHEN EXISTS (SELECT 1 FROM overrides WHERE id = NEW.id OR seq = NEW.seq)
    BEGIN SELECT RAISE(ABORT, 'overrides is append-only: this act is recorded already'); END;

CREATE TABLE agreements (
    manager TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    ts_ms INTEGER NOT NULL,
    instance TEXT NOT NULL,
    active TEXT NOT NULL {_one_of("active", ROLES)},
    share REAL NOT NULL,
    stage INTEGER,
    cause TEXT NOT NULL,
    ramp_aborted INTEGER NOT NULL CHECK (ramp_aborted IN (0, 1)),
    document TEXT NOT NULL CHECK (json_valid(document)),
    PRIMARY KEY (manager, epoch)
) STRICT, WITHOUT ROWID;
CREATE INDEX agreements_by_time ON agreements (manager, ts_ms);
"""  # noqa: S608 - the words are constants of this module

_ALERTS = f"""
CREATE TABLE alert_states (
    fingerprint TEXT PRIMARY KEY,
    rule TEXT NOT NULL,
    manager TEXT,
    severity TEXT NOT NULL DEFAULT '',
    labels TEXT NOT NULL CHECK (json_valid(labels)),
    state TEXT NOT NULL {_one_of("state", ALERT_STATES)},
    value REAL,
    since_ms INTEGER NOT NULL,
    body TEXT NOT NULL DEFAULT '{{}}' CHECK (json_valid(body))
) STRICT, WITHOUT ROWID;

CREATE TABLE alert_transitions (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    ts_ms INTEGER NOT NULL,
    rule TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    manager TEXT,
    labels TEXT NOT NULL CHECK (json_valid(labels)),
    from_state TEXT NOT NULL {_one_of("from_state", ALERT_STATES)},
    to_state TEXT NOT NULL {_one_of("to_state", ALERT_STATES)},
    value REAL,
    annotations TEXT NOT NULL DEFAULT '{{}}' CHECK (json_valid(annotations))
) STRICT;
CREATE INDEX alert_transitions_by_time ON alert_transitions (ts_ms);
CREATE INDEX alert_transitions_by_fingerprint ON alert_transitions (fingerprint, ts_ms);

CREATE TABLE outbox (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    created_ms INTEGER NOT NULL,
    receiver TEXT NOT NULL,
    kind TEXT NOT NULL,
    ordering_key TEXT NOT NULL DEFAULT '',
    dedupe_key TEXT UNIQUE,
    content_type TEXT NOT NULL DEFAULT 'application/json',
    body TEXT NOT NULL,
    state TEXT NOT NULL {_one_of("state", OUTBOX_STATES)},
    attempts INTEGER NOT NULL DEFAULT 0,
    next_attempt_ms INTEGER NOT NULL,
    expires_ms INTEGER,
    delivered_ms INTEGER,
    last_status INTEGER,
    last_error TEXT,
    lease_owner TEXT,
    lease_until_ms INTEGER
) STRICT;
CREATE INDEX outbox_due ON outbox (next_attempt_ms) WHERE state IN ('pending', 'leased');
CREATE INDEX outbox_by_receiver ON outbox (receiver, state, seq);

CREATE TABLE deliveries (
    outbox_id TEXT NOT NULL,
    n INTEGER NOT NULL,
    ts_ms INTEGER NOT NULL,
    status_code INTEGER,
    error TEXT,
    duration_ms REAL NOT NULL,
    PRIMARY KEY (outbox_id, n)
) STRICT, WITHOUT ROWID;
CREATE INDEX deliveries_by_time ON deliveries (ts_ms);

CREATE TABLE silences (
    id TEXT PRIMARY KEY,
    created_ms INTEGER NOT NULL,
    starts_ms INTEGER NOT NULL,
    ends_ms INTEGER NOT NULL,
    matchers TEXT NOT NULL CHECK (json_valid(matchers)),
    author TEXT NOT NULL CHECK (length(author) > 0),
    reason TEXT NOT NULL CHECK (length(reason) > 0)
) STRICT, WITHOUT ROWID;
"""

_SUMS = f"""
CREATE TABLE rollup_minute (
    minute INTEGER NOT NULL,
    manager TEXT NOT NULL,
    role TEXT NOT NULL,
    model TEXT NOT NULL,
    status_code INTEGER NOT NULL,
    outcome TEXT NOT NULL {_one_of("outcome", OUTCOMES)},
    code TEXT NOT NULL,
    failover_cause TEXT NOT NULL,
    synthetic INTEGER NOT NULL,
    n INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    duration_ms REAL NOT NULL,
    overhead_us INTEGER NOT NULL,
    input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    cost_usd REAL NOT NULL,
    PRIMARY KEY (manager, minute, role, model, status_code, outcome, code, failover_cause, synthetic)
) STRICT, WITHOUT ROWID;

CREATE TABLE attempt_minute (
    minute INTEGER NOT NULL,
    manager TEXT NOT NULL,
    role TEXT NOT NULL,
    model TEXT NOT NULL,
    category TEXT NOT NULL,
    synthetic INTEGER NOT NULL,
    n INTEGER NOT NULL,
    duration_ms REAL NOT NULL,
    input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    cost_usd REAL NOT NULL,
    PRIMARY KEY (manager, minute, role, model, category, synthetic)
) STRICT, WITHOUT ROWID;

CREATE TABLE failover_minute (
    minute INTEGER NOT NULL,
    manager TEXT NOT NULL,
    scope TEXT NOT NULL,
    from_role TEXT NOT NULL,
    to_role TEXT NOT NULL,
    cause TEXT NOT NULL,
    n INTEGER NOT NULL,
    PRIMARY KEY (manager, minute, scope, from_role, to_role, cause)
) STRICT, WITHOUT ROWID;

CREATE TABLE breaker_minute (
    minute INTEGER NOT NULL,
    manager TEXT NOT NULL,
    role TEXT NOT NULL,
    from_state TEXT NOT NULL,
    to_state TEXT NOT NULL,
    n INTEGER NOT NULL,
    PRIMARY KEY (manager, minute, role, from_state, to_state)
) STRICT, WITHOUT ROWID;

CREATE TABLE latency_minute (
    minute INTEGER NOT NULL,
    manager TEXT NOT NULL,
    role TEXT NOT NULL,
    model TEXT NOT NULL,
    metric TEXT NOT NULL,
    outcome TEXT NOT NULL,
    bucket INTEGER NOT NULL,
    n INTEGER NOT NULL,
    PRIMARY KEY (manager, minute, metric, role, model, outcome, bucket)
) STRICT, WITHOUT ROWID;

CREATE TABLE totals (
    name TEXT NOT NULL,
    labels TEXT NOT NULL,
    value REAL NOT NULL,
    PRIMARY KEY (name, labels)
) STRICT, WITHOUT ROWID;

CREATE TABLE latency_totals (
    metric TEXT NOT NULL,
    manager TEXT NOT NULL,
    role TEXT NOT NULL,
    model TEXT NOT NULL,
    outcome TEXT NOT NULL,
    bucket INTEGER NOT NULL,
    n INTEGER NOT NULL,
    sum_ms REAL NOT NULL,
    PRIMARY KEY (manager, role, model, outcome, metric, bucket)
) STRICT, WITHOUT ROWID;
"""

_FLEET = """
CREATE TABLE fleet_state (
    manager TEXT PRIMARY KEY,
    epoch INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL,
    document TEXT NOT NULL CHECK (json_valid(document))
) STRICT, WITHOUT ROWID;

CREATE TABLE fleet_votes (
    manager TEXT NOT NULL,
    instance TEXT NOT NULL,
    host TEXT NOT NULL,
    beat TEXT NOT NULL,
    ttl_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL,
    vote TEXT NOT NULL CHECK (json_valid(vote)),
    PRIMARY KEY (manager, instance)
) STRICT, WITHOUT ROWID;

CREATE TABLE instances (
    instance TEXT PRIMARY KEY,
    host TEXT NOT NULL,
    version TEXT NOT NULL,
    started_ms INTEGER NOT NULL,
    beat TEXT NOT NULL,
    ttl_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL,
    gauges TEXT NOT NULL CHECK (json_valid(gauges))
) STRICT, WITHOUT ROWID;

CREATE TABLE leases (
    name TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    beat TEXT NOT NULL,
    ttl_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE marks (
    name TEXT PRIMARY KEY,
    ts_ms INTEGER NOT NULL,
    detail TEXT NOT NULL DEFAULT ''
) STRICT, WITHOUT ROWID;

CREATE TABLE store_meta (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
"""

_CANARIES = f"""
CREATE TABLE canary_results (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    ts_ms INTEGER NOT NULL,
    manager TEXT NOT NULL,
    instance TEXT NOT NULL,
    role TEXT NOT NULL {_one_of("role", ROLES)},
    model TEXT NOT NULL,
    canary TEXT NOT NULL CHECK (length(canary) > 0),
    passed INTEGER NOT NULL CHECK (passed IN (0, 1)),
    detail TEXT NOT NULL DEFAULT '' CHECK (length(detail) <= 200),
    request_id TEXT,
    duration_ms REAL NOT NULL
) STRICT;
CREATE INDEX canary_results_by_manager ON canary_results (manager, role, canary, ts_ms);
CREATE INDEX canary_results_by_time ON canary_results (ts_ms);
"""

_HOURS = """
CREATE TABLE rolled_hours (
    manager TEXT NOT NULL,
    hour INTEGER NOT NULL,
    slowest INTEGER,
    PRIMARY KEY (manager, hour)
) STRICT, WITHOUT ROWID;

CREATE TABLE rollup_hour (
    hour INTEGER NOT NULL,
    manager TEXT NOT NULL,
    role TEXT NOT NULL,
    model TEXT NOT NULL,
    status_code INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    code TEXT NOT NULL,
    failover_cause TEXT NOT NULL,
    synthetic INTEGER NOT NULL,
    n INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    duration_ms REAL NOT NULL,
    overhead_us INTEGER NOT NULL,
    input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    cost_usd REAL NOT NULL,
    PRIMARY KEY (manager, hour, role, model, status_code, outcome, code, failover_cause, synthetic)
) STRICT, WITHOUT ROWID;

CREATE TABLE attempt_hour (
    hour INTEGER NOT NULL,
    manager TEXT NOT NULL,
    role TEXT NOT NULL,
    model TEXT NOT NULL,
    category TEXT NOT NULL,
    synthetic INTEGER NOT NULL,
    n INTEGER NOT NULL,
    duration_ms REAL NOT NULL,
    input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    cost_usd REAL NOT NULL,
    PRIMARY KEY (manager, hour, role, model, category, synthetic)
) STRICT, WITHOUT ROWID;

CREATE TABLE failover_hour (
    hour INTEGER NOT NULL,
    manager TEXT NOT NULL,
    scope TEXT NOT NULL,
    from_role TEXT NOT NULL,
    to_role TEXT NOT NULL,
    cause TEXT NOT NULL,
    n INTEGER NOT NULL,
    PRIMARY KEY (manager, hour, scope, from_role, to_role, cause)
) STRICT, WITHOUT ROWID;

CREATE TABLE breaker_hour (
    hour INTEGER NOT NULL,
    manager TEXT NOT NULL,
    role TEXT NOT NULL,
    from_state TEXT NOT NULL,
    to_state TEXT NOT NULL,
    n INTEGER NOT NULL,
    PRIMARY KEY (manager, hour, role, from_state, to_state)
) STRICT, WITHOUT ROWID;

CREATE TABLE latency_hour (
    hour INTEGER NOT NULL,
    manager TEXT NOT NULL,
    role TEXT NOT NULL,
    model TEXT NOT NULL,
    metric TEXT NOT NULL,
    outcome TEXT NOT NULL,
    bucket INTEGER NOT NULL,
    n INTEGER NOT NULL,
    PRIMARY KEY (manager, hour, metric, role, model, outcome, bucket)
) STRICT, WITHOUT ROWID;

CREATE INDEX overrides_by_time ON overrides (ts_ms);
CREATE INDEX agreements_of_all_by_time ON agreements (ts_ms);
"""


def m001_tables(db: sqlite_utils.Database) -> None:
    """Every table of the first version, and the key that `prompt_hash` is made with."""
    for statement in _statements(_TRAFFIC + _EVENTS + _ALERTS + _SUMS + _FLEET):
        db.execute(statement)
    db.execute("INSERT INTO store_meta VALUES ('prompt_key', ?)", [secrets.token_hex(32)])
    db.execute("INSERT INTO store_meta VALUES ('created_ms', CAST(unixepoch('subsec') * 1000 AS TEXT))")


def m002_canary_results(db: sqlite_utils.Database) -> None:
    """What canaries found, one row for each answer that was judged."""
    for statement in _statements(_CANARIES):
        db.execute(statement)


def m003_hours(db: sqlite_utils.Database) -> None:
    """Sums by the hour; those of a history that is there already are caught up with while Switchgear serves.

    And two indexes for the timeline of all managers.
    """
    for statement in _statements(_HOURS):
        db.execute(statement)


MIGRATIONS = (m001_tables, m002_canary_results, m003_hours)
"""In this order, each once; the store remembers them by name."""


def _statements(script: str) -> list[str]:
    """Split a script of CREATE statements; a trigger's body keeps its semicolons."""
    statements: list[str] = []
    pending = ""
    for line in script.splitlines():
        pending += line + "\n"
        ends = line.rstrip().endswith(";")
        inside_trigger = "CREATE TRIGGER" in pending and not line.rstrip().endswith("END;")
        if ends and not inside_trigger:
            statements.append(pending.strip())
            pending = ""
    return statements


def migrate(connection: Connection) -> None:
    """Bring a writable connection's database to this version, in one transaction.

    The write lock is taken first, so of two processes that start together one waits for the other.

    Args:
        connection: In autocommit mode (`isolation_level=None`), outside a transaction.
    """
    library = _sqlite_utils()
    migrations = library.Migrations("switchgear")
    for step in MIGRATIONS:
        migrations()(step)
    db = library.Database(connection, execute_plugins=False)
    connection.execute("BEGIN IMMEDIATE")
    try:
        migrations.apply(db)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _sqlite_utils() -> ModuleType:
    """The library, imported when there is something to migrate, and without what it would only make room for."""
    with without("numpy", "pandas"):
        import sqlite_utils  # noqa: PLC0415 - half a second and 90 MB that a store of this version needs not
    return sqlite_utils
