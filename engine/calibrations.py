"""What was learned about token estimates, kept across restarts: a model's tokenizer does not change with a process.

Estimates decide before a call whether a prompt fits a window. A process that starts goes on with the ratios of the
last one; while it runs it learns from every answer, and keeps what it learned once a minute and at its end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Final

from engine import queries
from engine.core.capability import Calibration
from engine.core.errors import StoreUnavailable
from engine.ledger import keep_calibrations

if TYPE_CHECKING:
    from engine.exchange import Exchange
    from engine.recorder import Recorder

KEEP_EVERY: Final = 60.0
"""Seconds between two writes."""

WORTH_KEEPING: Final = 0.01
"""Least change of a ratio that is written."""


class Calibrations:
    """The calibrations of one process.

    Args:
        recorder: Where they are kept.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._kept: dict[str, float] = {}
        self._keep_at = 0.0

    def restore(self, exchange: Exchange) -> None:
        """Give a manager's models the ratios that were kept."""
        try:
            with self._recorder.store.reader() as connection:
                known = queries.calibrations(connection)
        except StoreUnavailable:
            return  # estimates begin without them; the store's trouble is told where it matters
        for model, calibration in _lines([exchange]):
            ratio = known.get(model)
            if ratio is not None:
                calibration.restore(ratio)
            self._kept[model] = calibration.ratio

    def turn(self, exchanges: Iterable[Exchange], now: float) -> None:
        """Keep what is new, once a minute.

        Args:
            exchanges: The process's managers.
            now: Monotonic seconds.
        """
        if now >= self._keep_at:
            self._keep_at = now + KEEP_EVERY
            self.keep(exchanges)

    def keep(self, exchanges: Iterable[Exchange]) -> None:
        """Keep what is new; does not wait for it."""
        changed = {
            model: calibration.ratio
            for model, calibration in _lines(exchanges)
            if abs(calibration.ratio - self._kept.get(model, 1.0)) >= WORTH_KEEPING
        }
        if changed:
            self._recorder.execute(partial(keep_calibrations, ratios=changed))
            self._kept.update(changed)


def _lines(exchanges: Iterable[Exchange]) -> Iterator[tuple[str, Calibration]]:
    for exchange in exchanges:
        for line in exchange.board.lines.values():
            yield line.model.name, line.calibration
