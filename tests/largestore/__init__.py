"""Very large stores, made in minutes: the rows a ledger would have written, by statements over whole days of them.

`fill(path, Shape(requests=2_000_000, end_ms=…))` makes a store of this version with requests, attempts, moves, breaker
transitions, agreements, alerts, notifications, canaries and every sum of them. `test_largestore.py` posts the same
records through the real ledger and compares all tables of sums, row by row.

All shapes have the same thirty-one days with the same incidents, and the same traffic in the last two hours; what
differs is how dense the history before them is. So a question about recent times has the same answer on all of them.
"""

from tests.largestore.fill import fill
from tests.largestore.shape import BUSY, SPARE, Shape

__all__ = ["BUSY", "SPARE", "Shape", "fill"]
