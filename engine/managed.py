"""What the threaded and the asynchronous manager have in common: how one is built, and what it is called."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

from engine.canaries import Canary
from engine.config import Config
from engine.core.errors import InvalidRequest, SwitchgearError
from engine.core.messages import Request, Role
from engine.instance import Instance, closed
from engine.providers.base import Provider
from engine.validation import Validator
from engine.workers import Workers

log = logging.getLogger(__name__)


class Managed(ABC):
    """One exchange of one instance; its subclasses drive it.

    Args:
        config: A configuration, its path, or `None` for the usual places.
        name: The manager's name in it.
        providers: Providers by name that replace configured ones.
        validators: Callables that may reject an answer.
        instance: The process this manager belongs to; by default one of its own.
    """

    def __init__(
        self,
        config: Config | Path | str | None,
        name: str,
        *,
        providers: Mapping[str, Provider] | None,
        validators: Sequence[Validator],
        instance: Instance | None,
    ) -> None:
        self._own = instance is None
        self._instance = instance or Instance.open(config)
        try:
            self._exchange = self._instance.exchange(name, providers=providers, validators=validators)
        except BaseException:
            if self._own:
                self._instance.close()
            raise
        self._workers = Workers()
        self._closed = False
        self._instance.agent.probes_with(name, self._probe)
        self._instance.canaries.asks_with(name, self._canary)

    @classmethod
    def from_config(
        cls,
        path: Config | Path | str | None,
        name: str,
        *,
        providers: Mapping[str, Provider] | None = None,
        validators: Sequence[Validator] = (),
    ) -> Self:
        """Build a manager from a configuration file; arguments and errors as for the class."""
        return cls(path, name, providers=providers, validators=validators, instance=None)

    @property
    def name(self) -> str:
        """The manager's name."""
        return self._exchange.name

    def _still_open(self) -> None:
        """Refuse to go on once closed: another attempt would open threads and connections that nobody closes.

        Raises:
            StoreUnavailable: This manager is closed.
        """
        if self._closed:
            raise closed()

    def _probe(self, request: Request, role: Role) -> None:
        """Send a synthetic request without making anybody wait; called on the agent's thread."""
        self._aside(request, role, None, lambda: self._instance.agent.probed(self.name))

    def _canary(self, canary: Canary, role: Role, done: Callable[[], None]) -> None:
        """Ask a canary of a model without making anybody wait; called on the agent's thread."""
        self._aside(canary.request(), role, canary, done)

    def _unanswered(self, canary: Canary | None, role: Role, error: SwitchgearError) -> None:
        """A request beside the callers' failed, which is on record; only a canary that no model takes needs saying."""
        if canary is not None and error.status_code == InvalidRequest.status_code:
            said = "canary %s cannot be asked of the %s model of %s, so it finds nothing: %s (request %s)"
            log.warning(said, canary.name, role, self.name, error.code, error.request_id)

    @abstractmethod
    def _aside(self, request: Request, role: Role, canary: Canary | None, done: Callable[[], None]) -> None:
        """Send a request beside the callers', and say when it has ended."""
