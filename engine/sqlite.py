"""The one place that chooses the SQLite library; nobody else imports `pysqlite3` or `sqlite3`.

Two SQLite libraries on one file in one process break each other's locks (POSIX locks belong to the process, and
closing any handle drops them), so the choice is made once. `pysqlite3` bundles a SQLite without the WAL-reset bug
that can corrupt a database when two connections write or checkpoint at the same instant
(3.7.0 to 3.51.2, fixed in 3.51.3); the standard library's is the fallback where there is no wheel.

The exception classes of the two libraries differ too, so take them from here as well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3
else:
    try:
        from pysqlite3 import dbapi2 as sqlite3
    except ImportError:
        import sqlite3

__all__ = [
    "WAL_RESET_FIXED",
    "Connection",
    "DataError",
    "DatabaseError",
    "Error",
    "IntegrityError",
    "InterfaceError",
    "OperationalError",
    "ProgrammingError",
    "Row",
    "library",
    "many_writers_safe",
    "sqlite3",
    "version",
]

# For a value without an adapter one is searched for by catching errors: a microsecond for every NULL that is written.
sqlite3.register_adapter(type(None), lambda none: none)

Connection = sqlite3.Connection
Row = sqlite3.Row
Error = sqlite3.Error
DatabaseError = sqlite3.DatabaseError
IntegrityError = sqlite3.IntegrityError
DataError = sqlite3.DataError
InterfaceError = sqlite3.InterfaceError
OperationalError = sqlite3.OperationalError
ProgrammingError = sqlite3.ProgrammingError

WAL_RESET_FIXED = (3, 51, 3)
"""The first SQLite in which several processes may write one WAL file safely."""


def version() -> str:
    """The version of the SQLite library in use, such as `3.53.4`."""
    return sqlite3.sqlite_version


def library() -> str:
    """The module it comes from: `pysqlite3` or `sqlite3`."""
    return sqlite3.__name__.partition(".")[0]


def many_writers_safe(sqlite_version: str | None = None) -> bool:
    """Whether several processes may write one database with this SQLite.

    Args:
        sqlite_version: The version to judge, by default the one in use.
    """
    parts = tuple(int(part) for part in (sqlite_version or version()).split(".")[:3])
    return parts >= WAL_RESET_FIXED
