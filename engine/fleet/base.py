"""What a store of the agreement must offer; every store is one file beside this one, held to one contract suite.

Calls are synchronous, thread-safe and bounded in time; the fleet's agent makes them on its own thread, never a
request. A store promises that `swap` is atomic: of two writers that expect the same epoch one wins. It promises
nothing about hints: `subscribe` makes agreement fast, reading makes it right.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Protocol

from engine.core.agreement import Document, Member, Vote
from engine.core.errors import SwitchgearError


class CoordinatorUnavailable(SwitchgearError):
    """The store of the agreement cannot be used now; the last agreement is kept. The message says what to change."""

    code: ClassVar[str] = "coordinator_unavailable"
    status_code: ClassVar[int] = 503


class Coordinator(Protocol):
    """A store of the agreement, as one instance uses it.

    Every method may raise `CoordinatorUnavailable`; after that from `swap`, `vote`, `register` or `lease` it is
    unknown whether the write happened, so read again first.
    """

    def read(self, manager: str) -> Document | None:
        """What is agreed for a manager, `None` when nothing is yet.

        Raises:
            DocumentError: The key holds something else, or a newer version's document.
        """

    def swap(self, manager: str, expected_epoch: int | None, document: Document) -> bool:
        """Replace the document if it still is of an epoch.

        Args:
            manager: Whose document.
            expected_epoch: The epoch it must have; `None`: there must be no document yet.
            document: What takes its place, of a later epoch.

        Returns:
            Whether this document is the agreement now; False: somebody was faster, read again.

        Raises:
            ValueError: The document's epoch is not later than the expected one.
        """

    def subscribe(self, on_change: Callable[[str], None]) -> None:
        """Call back with a manager's name soon after its document changed. Hints may be lost or repeated."""

    def vote(self, manager: str, vote: Vote, ttl: float) -> None:
        """Say what this instance finds; fresh for `ttl` seconds."""

    def votes(self, manager: str) -> list[Vote]:
        """All fresh votes about a manager, by instance."""

    def register(self, member: Member, ttl: float) -> None:
        """Say that this instance is alive, for `ttl` seconds."""

    def members(self) -> list[Member]:
        """Instances alive and recently lost, by name; the lost ones with the time since."""

    def lease(self, name: str, owner: str, ttl: float) -> bool:
        """Take or renew a lease that one owner at a time has.

        Returns:
            Whether the owner has it for the next `ttl` seconds.
        """

    def close(self) -> None:
        """Leave the fleet and let go of the store; an instance that closes is not counted as lost."""
