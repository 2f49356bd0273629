"""One process of one configuration: its recorder, its coordinator, its managers and the agent that agrees for them.

Opening an instance touches the local store and nothing else; the network is first used by the first request or by
`start`. Everything a gateway, a library user or a watcher runs is built here once, so primary and secondary, the
threaded and the asynchronous manager, are never wired twice.
"""

from __future__ import annotations

import atexit
import os
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from weakref import WeakSet

from engine import standstill
from engine.calibrations import Calibrations
from engine.canary_watch import CanaryWatch
from engine.clock import Clock, SystemClock
from engine.config import Config, load
from engine.control import Control
from engine.core.errors import ConfigurationError, StoreUnavailable, SwitchgearError, UnknownManager
from engine.exchange import Exchange, Identity
from engine.fleet.agent import Agent
from engine.fleet.base import Coordinator
from engine.fleet.gauges import gauges_of
from engine.fleet.registry import open_coordinator
from engine.fleet.store import StoreCoordinator
from engine.providers.base import Provider, build
from engine.recorder import Durability, Recorder
from engine.store import Store
from engine.validation import Validator

REFUSED_FOR: Final = 1.0
"""Seconds after which a request refused for the store's sake may be tried again; the recorder tries twice as often."""


def closed() -> StoreUnavailable:
    """What is told to whoever asks a manager that is closed."""
    return StoreUnavailable("this manager is closed: build another one")


class Instance:
    """Everything one process holds; see the module's text.

    Args:
        config: The configuration.
        recorder: Where records go.
        coordinator: How instances agree.
        identity: Who this process is.
        clock: Where time comes from.
    """

    def __init__(
        self,
        config: Config,
        recorder: Recorder,
        coordinator: Coordinator,
        identity: Identity,
        clock: Clock | None = None,
    ) -> None:
        self.config = config
        self.recorder = recorder
        self.coordinator = coordinator
        self.identity = identity
        self.clock = clock or SystemClock()
        self.local_agreement = None if isinstance(coordinator, StoreCoordinator) else StoreCoordinator(recorder)
        self.agent = Agent(self)
        self.canaries = CanaryWatch(self)
        self.calibrations = Calibrations(recorder)
        self.exchanges: dict[str, Exchange] = {}
        self._lock = threading.Lock()
        self._opened_by = os.getpid()
        self._started = False
        self._closed = False
        self._forked = False

    @classmethod
    def open(cls, config: Config | Path | str | None, *, coordinator: Coordinator | None = None) -> Instance:
        """Open the store of a configuration and get ready; makes no network call.

        Args:
            config: A configuration, its path, or `None` for the usual places.
            coordinator: Another coordinator than the configuration's.

        Raises:
            ConfigurationError: The configuration or the store cannot work.
        """
        settings = config if isinstance(config, Config) else load(config)
        identity = _somebody(settings.fleet_host)
        store = Store(settings.store_path).open()
        recorder = Recorder(store, durability=settings.store.durability, record_content=settings.store.record_content)
        if coordinator is None:
            coordinator = open_coordinator(
                settings.fleet_url(), instance=identity.instance, recorder=recorder, tls=settings.fleet_tls
            )
        return cls(settings, recorder, coordinator, identity)

    def exchange(
        self,
        name: str,
        *,
        providers: Mapping[str, Provider] | None = None,
        validators: Sequence[Validator] = (),
    ) -> Exchange:
        """The exchange of a manager, made on first use.

        Args:
            name: The manager's name.
            providers: Providers by name that replace configured ones.
            validators: Callables that may reject an answer.

        Raises:
            UnknownManager: The configuration has no such manager.
            ConfigurationError: A provider's key is missing, there is none to replace, or the canaries are wrong.
        """
        with self._lock:
            found = self.exchanges.get(name)
            if found is None:
                found = self._make(name, providers or {}, validators)
                self.canaries.add(found)
                self.calibrations.restore(found)
                self.exchanges[name] = found
                self.agent.add(found)
            return found

    def _make(self, name: str, providers: Mapping[str, Provider], validators: Sequence[Validator]) -> Exchange:
        if name not in self.config.managers:
            known = ", ".join(sorted(self.config.managers))
            msg = f"there is no manager named {name!r}; this configuration has {known}"
            raise UnknownManager(msg, param="model")
        unknown = sorted(set(providers) - set(self.config.providers))
        if unknown:
            known = ", ".join(sorted(self.config.providers))
            msg = f"there is no provider named {unknown[0]!r} to replace; this configuration has {known}"
            raise ConfigurationError(msg)
        policy = self.config.manager_policy(name)
        wanted = {policy.primary.provider, policy.secondary.provider}
        return Exchange(
            policy,
            identity=self.identity,
            sink=self.recorder,
            providers={key: providers[key] if key in providers else self._provider(key) for key in wanted},
            clock=self.clock,
            validators=validators,
            on_event=self.agent.poke,
            refuses=self._refusal,
            stood_still=standstill.seconds,
        )

    def _refusal(self) -> SwitchgearError | None:
        """Why no request can be taken on now: asking a model for what cannot be recorded would be for nothing."""
        if self._closed:
            return closed()
        if self._forked:
            return StoreUnavailable("this manager was in use before the process was forked: build another one in here")
        error = self.recorder.error
        if error is None or self.recorder.durability is not Durability.COMMIT:
            return None
        return StoreUnavailable(str(error), retry_after=REFUSED_FOR)

    def _provider(self, key: str) -> Provider:
        settings = self.config.provider_settings(key)
        trouble = settings.key_trouble
        if trouble is not None:
            msg = f"{self.config.source}: providers.{key}.api_key_env: {trouble}"
            raise ConfigurationError(msg)
        return build(settings.kind, api_key=settings.api_key, base_url=settings.base_url, name=key)

    def control(self) -> Control:
        """The acts of operators, taking effect here before they are answered."""
        return Control(
            self.config,
            self.recorder,
            self.coordinator,
            clock=self.clock,
            on_change=self.agent.refresh,
            instance=self.identity.instance,
        )

    @property
    def started(self) -> bool:
        """Whether this process has begun to agree with the others."""
        return self._started

    def gauges(self) -> dict[str, dict[str, Any]]:
        """What belongs to this process, as of now, under its name; nothing before it has started."""
        with self._lock:
            exchanges = list(self.exchanges.values())
        return {self.identity.instance: gauges_of(self, exchanges)} if self._started else {}

    def start(self) -> None:
        """Begin to agree with the others; done by the first request if nobody did it before. Cheap when done."""
        if not self._started:
            self._start_once()

    def _start_once(self) -> None:
        with self._lock:
            if self._started or self._closed:
                return
            if self._opened_by != os.getpid():  # forked from one that had only built it, as servers do with workers
                self.identity = _somebody(self.identity.host)
                for exchange in self.exchanges.values():
                    exchange.identity = self.identity
            standstill.watch()
            self.recorder.start()
            self.agent.start()
            self._started = True
            _in_use.add(self)

    def close(self, *closers: Callable[[], None]) -> None:
        """Stop agreeing, leave the fleet, and commit what is queued; calling it again does nothing.

        Nor does calling it in a forked process, where threads and connections are the parent's.
        """
        if self._forked:
            return
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self.agent.stop()
        if self._started:
            with suppress(StoreUnavailable):
                self.calibrations.keep(list(self.exchanges.values()))
        for close in closers:
            close()
        self.coordinator.close()
        if self.local_agreement is not None:
            self.local_agreement.close()
        self.recorder.close()


def _somebody(host: str) -> Identity:
    """A name of this process that no other has."""
    return Identity(f"{host}-{os.getpid()}-{secrets.token_hex(3)}", host)


_in_use: Final[WeakSet[Instance]] = WeakSet()


def _after_fork() -> None:
    """A forked process has its parent's managers without their threads: a request would wait for an answer for ever."""
    for instance in _in_use:
        instance._forked = True
        atexit.unregister(instance.recorder.close)


os.register_at_fork(after_in_child=_after_fork)
