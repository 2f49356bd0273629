"""Real processes for benchmarks and long tests: a fast model, a bare proxy, the gateway, and clients that load them.

The fast model does nothing but answer, so what is measured is what stands before it. Faults are `tests.upstream`'s.
"""

from tests.rig.load import Answer, Load, Streams, hold_streams, load, time_streams
from tests.rig.processes import BareProxy, FastModel, Gateway, Process

__all__ = [
    "Answer",
    "BareProxy",
    "FastModel",
    "Gateway",
    "Load",
    "Process",
    "Streams",
    "hold_streams",
    "load",
    "time_streams",
]
