"""Canaries at work: when each is asked, by whom, and how all processes of a host learn what it found.

One process per store asks, the holder of a lease; the others read what it found. So canaries cost the same however
many workers a host runs, and yet every host finds out for itself, as its vote has to be its own. Asking goes through
whichever driver serves the manager, as synthetic requests, so limits, breakers and the record are those of callers.

The agent's thread turns the watch, not the scheduler of alerts: an application that embeds a manager has canaries too,
asked by its own providers and judged before its own breakers. A process that begins to ask goes on with the schedule of
the one before it.

    due ──ask──> judged: in the store with its request ──> every process: breaker, vote
     ^             |
     └─ interval, or RECHECK_EVERY after a failure or an answer that never came
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from engine import queries
from engine.canaries import Canary, CanarySchedule, Run, load
from engine.core.drift import RECHECK_EVERY
from engine.core.errors import StoreUnavailable
from engine.core.messages import Role
from engine.fleet.base import CoordinatorUnavailable

if TYPE_CHECKING:
    from engine.exchange import Exchange
    from engine.instance import Instance

log = logging.getLogger(__name__)

Asker = Callable[[Canary, Role, Callable[[], None]], None]
"""`ask(canary, role, done)`: sends a canary without waiting, and calls `done` when it has ended, well or not."""

TURN_EVERY: Final = 1.0
"""Seconds between two looks at what is due and what others found."""

LEASE_FOR: Final = 30.0
"""Seconds after which another process takes over from one that died."""


@dataclass(slots=True)
class _Owed:
    """A run that has not been judged yet."""

    run: Run
    since: float
    not_before: float


@dataclass(slots=True)
class _Post:
    """One manager's canaries."""

    exchange: Exchange
    canaries: dict[str, Canary]
    schedule: CanarySchedule
    asker: Asker | None = None
    owed: dict[tuple[Role, str], _Owed] = field(default_factory=dict)
    asking: set[Role] = field(default_factory=set)
    seen: int | None = None
    holds: bool = False
    leased_at: float | None = None


class CanaryWatch:
    """The canaries of all managers of one process.

    Args:
        instance: The process.
    """

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._posts: dict[str, _Post] = {}
        self._next_turn = 0.0

    def add(self, exchange: Exchange) -> None:
        """Take on a manager, if it has canaries.

        Raises:
            ConfigurationError: The file of canaries cannot be read, or something in it is wrong.
        """
        settings = exchange.policy.validation
        if not settings.canaries:
            return
        canaries = load(self._instance.config.beside(settings.canaries))
        schedule = CanarySchedule(canaries, settings.canary_every, exchange.clock.monotonic())
        post = _Post(exchange, {canary.name: canary for canary in canaries}, schedule)
        self._posts = {**self._posts, exchange.name: post}

    def asks_with(self, name: str, asker: Asker) -> None:
        """How canaries of a manager are asked: by whichever driver serves it."""
        if name in self._posts:
            self._posts[name].asker = asker

    def turn(self) -> None:
        """Learn what others found, and ask what is due; returns at once where there is nothing to do."""
        if not self._posts:
            return
        now = self._instance.clock.monotonic()
        if now < self._next_turn:
            return
        self._next_turn = now + TURN_EVERY
        for post in self._posts.values():
            try:
                self._learn(post)
                self._ask(post, now)
            except (CoordinatorUnavailable, StoreUnavailable) as error:
                log.warning("canaries of %s wait: %s", post.exchange.name, error)
            except Exception:
                log.exception("the canaries of %s stumbled; they are asked again in a moment", post.exchange.name)

    # -- learning ----------------------------------------------------------------------------------------------

    def _learn(self, post: _Post) -> None:
        """Take in what other processes found since the last look; at start, what has not been forgotten yet."""
        exchange = post.exchange
        own = exchange.identity.instance
        since_ms = exchange.clock.wall_ms() - round(2000 * exchange.policy.validation.canary_every)
        with self._instance.recorder.store.reader() as connection:
            if post.seen is None:
                found = queries.latest_canaries(connection, exchange.name, since_ms=since_ms)
            else:
                found = queries.canaries_after(connection, exchange.name, post.seen)
        for row in sorted(found, key=lambda row: row.seq):
            post.seen = max(post.seen or 0, row.seq)
            if row.instance != own and row.canary in post.canaries:
                exchange.judged(Role(row.role), row.canary, passed=row.passed, request_id=row.request_id or "")
        post.seen = post.seen or 0

    # -- asking ------------------------------------------------------------------------------------------------

    def _ask(self, post: _Post, now: float) -> None:
        if post.asker is None or not self._holds(post, now):
            post.owed.clear()
            return
        for run in post.schedule.due(now):
            post.owed[run.role, run.canary.name] = _Owed(run, now, now)
        self._owe_again(post, now)
        board = post.exchange.board
        for (role, name), owed in list(post.owed.items()):
            judged_at = board.drift.judged_at(role, name)
            if judged_at is not None and judged_at >= owed.since:
                del post.owed[role, name]
                continue
            with post.exchange.lock:
                askable = now >= owed.not_before and role not in post.asking and board.askable(role, now)
            if askable:
                self._send(post, post.asker, owed, now)

    def _owe_again(self, post: _Post, now: float) -> None:
        """A canary that failed is asked again soon: nothing else brings its model back."""
        drift = post.exchange.board.drift
        for role in Role:
            for name in drift.failing(role, now):
                judged_at = drift.judged_at(role, name)
                again = name in post.canaries and judged_at is not None and now >= judged_at + RECHECK_EVERY
                if again and (role, name) not in post.owed:
                    post.owed[role, name] = _Owed(Run(post.canaries[name], role), now, now)

    def _send(self, post: _Post, asker: Asker, owed: _Owed, now: float) -> None:
        """Ask one canary; one at a time of each model, so that they never come as a burst."""
        role = owed.run.role
        owed.not_before = now + RECHECK_EVERY
        post.asking.add(role)
        try:
            asker(owed.run.canary, role, lambda: post.asking.discard(role))
        except BaseException:
            post.asking.discard(role)
            raise

    def _holds(self, post: _Post, now: float) -> bool:
        """Whether this process is the one of its store that asks; what was asked before it was does not wait anew."""
        if post.leased_at is None or now >= post.leased_at + LEASE_FOR / 3:
            held, post.holds = post.holds, False
            keeper = self._instance.local_agreement or self._instance.coordinator
            post.holds = keeper.lease(f"canaries/{post.exchange.name}", self._instance.identity.instance, LEASE_FOR)
            post.leased_at = now
            if post.holds and not held:
                self._take_up(post, now)
        return post.holds

    def _take_up(self, post: _Post, now: float) -> None:
        """Go on with the schedule where others left off."""
        wall_ms = post.exchange.clock.wall_ms()
        with self._instance.recorder.store.reader() as connection:
            found = queries.latest_canaries(connection, post.exchange.name)
        post.schedule.resume({(row.canary, Role(row.role)): max(0, wall_ms - row.ts_ms) / 1000 for row in found}, now)
