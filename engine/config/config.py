"""The one place that reads the configuration file, and what it means to the rest of the engine."""

from __future__ import annotations

import json
import os
import socket
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from engine.config import policies
from engine.config.checks import check, dangling
from engine.config.exposure import NamedKey, Surface, exposure_problems, named_keys, plain_keys
from engine.config.problems import Problem, failure, problems_of
from engine.config.sections import (
    AlertsSection,
    DashboardSection,
    FleetSection,
    ManagerSection,
    ModelSection,
    ProviderKind,
    ProviderSection,
    ReceiverKind,
    ReceiverSection,
    ServerSection,
    Settings,
    StoreSection,
)
from engine.core.policy import FleetPolicy, ManagerPolicy
from engine.fleet.tls import Tls
from engine.shipped import shipped

PATH_VARIABLE: Final = "SWITCHGEAR_CONFIG"
DEFAULT_PATH: Final = Path("data/switchgear.toml")
DEMO_STORE: Final = "sqlite:///demo.db"
DEMO_RECEIVER_VARIABLE: Final = "SWITCHGEAR_DEMO_RECEIVER"
"""Holds the address of the demo's own receiver of notifications, while it listens."""
_DEMO_RECEIVER: Final = ReceiverSection(
    name="demo", kind=ReceiverKind.WEBHOOK, url_env=DEMO_RECEIVER_VARIABLE, allow_private=True
)


@dataclass(frozen=True, slots=True)
class ProviderSettings:
    """What a provider is built from.

    Attributes:
        key: Its name in the configuration.
        kind: How it is reached.
        api_key: The key, `None` when none is named or the variable is unset.
        api_key_env: The variable's name, for messages; empty when the endpoint needs no key.
        base_url: Another endpoint, empty for the provider's own.
    """

    key: str
    kind: ProviderKind
    api_key: str | None = field(repr=False)
    api_key_env: str
    base_url: str

    @property
    def key_fault(self) -> str | None:
        """What is wrong with the variable that is named for the key; `None` for nothing, or where none is named."""
        if not self.api_key_env:
            return None
        if self.api_key is None:
            return "is not set"
        return None if all("!" <= letter <= "~" for letter in self.api_key) else "holds more than a key, or none"

    @property
    def key_trouble(self) -> str | None:
        """Why a key that is named cannot be used, and what to do; `None` when it can, or none is named."""
        fault, variable = self.key_fault, self.api_key_env
        return None if fault is None else f"the environment variable {variable} {fault}: export {variable}=KEY"


@dataclass(frozen=True, slots=True)
class Config:
    """A valid configuration: the file's sections as values, and what follows from them.

    Attributes:
        source: The file it was read from; relative paths in it start there.
        settings: All sections.
        stands_in: Whether it is the demo of a configuration: its receivers and providers are not those of the file.
    """

    source: Path
    settings: Settings
    stands_in: bool = False

    @property
    def server(self) -> ServerSection:
        """`[server]`."""
        return self.settings.server

    @property
    def dashboard(self) -> DashboardSection:
        """`[dashboard]`."""
        return self.settings.dashboard

    @property
    def store(self) -> StoreSection:
        """`[store]`."""
        return self.settings.store

    @property
    def fleet(self) -> FleetSection:
        """`[fleet]`."""
        return self.settings.fleet

    @property
    def providers(self) -> Mapping[str, ProviderSection]:
        """`[providers.X]` by key."""
        return self.settings.providers

    @property
    def models(self) -> Mapping[str, ModelSection]:
        """`[models.X]` by key."""
        return self.settings.models

    @property
    def managers(self) -> Mapping[str, ManagerSection]:
        """`[managers.X]` by name."""
        return self.settings.managers

    @property
    def alerts(self) -> AlertsSection:
        """`[alerts]`."""
        return self.settings.alerts

    @property
    def store_path(self) -> Path:
        """The database file, absolute."""
        return self.beside(self.store.url.removeprefix("sqlite:///"))

    @property
    def alert_rules_path(self) -> Path:
        """The rule file: the one named, else the one beside this file, else the shipped one."""
        path = self.beside(self.alerts.rules)
        if "rules" in self.alerts.model_fields_set or path.is_file():
            return path
        return shipped("alerts.toml")

    @property
    def dashboard_url(self) -> str:
        """What links begin with, without a slash at the end."""
        if self.dashboard.public_url:
            return self.dashboard.public_url.rstrip("/")
        return http_url(self.dashboard.host, self.dashboard.port)

    @property
    def gateway_url(self) -> str:
        """Where the gateway is reached from this machine."""
        return http_url(self.server.host, self.server.port)

    @property
    def fleet_host(self) -> str:
        """This host's name in the fleet, which has one vote."""
        return self.fleet.host or socket.gethostname()

    @property
    def fleet_tls(self) -> Tls:
        """Whom to trust and who we are where the coordinator speaks TLS."""
        fleet = self.fleet
        return Tls(*(self.beside(name) if name else None for name in (fleet.ca, fleet.cert, fleet.key)))

    @property
    def fleet_policy(self) -> FleetPolicy:
        """How instances agree."""
        return policies.fleet_policy(self.fleet)

    @property
    def is_demo(self) -> bool:
        """Whether every provider is simulated."""
        return all(provider.kind is ProviderKind.SIMULATED for provider in self.providers.values())

    def beside(self, path: str) -> Path:
        """A path of the file as an absolute one: relative paths are beside the file."""
        return (self.source.parent / Path(path).expanduser()).resolve()

    def manager_policy(self, name: str) -> ManagerPolicy:
        """Everything that decides one manager's behaviour, with the models' facts merged.

        Raises:
            ConfigurationError: There is no such manager.
        """
        if name not in self.managers:
            known = ", ".join(self.managers)
            problem = Problem(f"managers.{name}", f"there is no such manager: add it, or name one of {known}")
            raise failure(self.source, [problem])
        return policies.manager_policy(name, self.settings)

    def provider_settings(self, key: str, environ: Mapping[str, str] = os.environ) -> ProviderSettings:
        """What a provider is built from; its key is read from the environment now.

        A variable that is not set gives no key and no error: see `ProviderSettings.key_trouble`. Spaces and line ends
        around a key, which files of secrets end with, are no part of it.
        """
        section = self.providers[key]
        api_key = environ.get(section.api_key_env, "").strip() if section.api_key_env else ""
        return ProviderSettings(key, section.kind, api_key or None, section.api_key_env, section.base_url.rstrip("/"))

    def fleet_url(self, environ: Mapping[str, str] = os.environ) -> str:
        """The coordinator's URL; the one in `fleet.url_env` wins. It may hold a password: never log it."""
        return (environ.get(self.fleet.url_env) if self.fleet.url_env else None) or self.fleet.url

    def api_keys(self, environ: Mapping[str, str] = os.environ) -> tuple[str, ...]:
        """Keys of callers of /v1."""
        return plain_keys(self.server.api_keys_env, environ)

    def operator_keys(self, environ: Mapping[str, str] = os.environ) -> tuple[NamedKey, ...]:
        """Keys of operators; raises `ConfigurationError` for an entry that is not `name:key`."""
        return self._named("operator_keys_env", self.server.operator_keys_env, environ)

    def viewer_keys(self, environ: Mapping[str, str] = os.environ) -> tuple[NamedKey, ...]:
        """Keys of those who may look and not act; raises `ConfigurationError` like `operator_keys`."""
        return self._named("viewer_keys_env", self.server.viewer_keys_env, environ)

    def _named(self, key: str, variable: str, environ: Mapping[str, str]) -> tuple[NamedKey, ...]:
        try:
            return named_keys(variable, environ)
        except ValueError as error:
            problem = Problem(f"server.{key}", f"{error}: export {variable}=ana:KEY,bob:KEY")
            raise failure(self.source, [problem]) from None

    def refuse_exposed(self, *surfaces: Surface, oidc: bool = False, environ: Mapping[str, str] = os.environ) -> None:
        """Check before listening that what others can reach asks for keys.

        Args:
            surfaces: What is going to listen.
            oidc: Whether the dashboard signs people in by OIDC.
            environ: The environment that holds the keys.

        Raises:
            ConfigurationError: An address is open and no keys are set; the message has the line to add.
        """
        problems: list[Problem] = []
        for surface in surfaces:
            problems += exposure_problems(self.settings, surface, environ, oidc=oidc)
        if problems:
            raise failure(self.source, problems)

    @property
    def providers_in_use(self) -> tuple[str, ...]:
        """The providers whose models a manager has."""
        names = (name for one in self.managers.values() for name in (one.primary, one.secondary))
        return tuple(sorted({self.models[name].provider for name in names}))

    def require_provider_keys(self, environ: Mapping[str, str] = os.environ) -> None:
        """Check before serving that every provider a manager uses has its key.

        Raises:
            ConfigurationError: A variable is not set or holds no key; the message names it.
        """
        problems = [
            Problem(f"providers.{key}.api_key_env", trouble)
            for key in self.providers_in_use
            if (trouble := self.provider_settings(key, environ).key_trouble) is not None
        ]
        if problems:
            raise failure(self.source, problems)

    @property
    def has_demo_store(self) -> bool:
        """Whether records go to the demo's own store, which every demo makes anew."""
        return self.is_demo and self.store.url == DEMO_STORE

    def as_demo(self, environ: Mapping[str, str] = os.environ) -> Config:
        """The same configuration on simulated providers, recording into `demo.db` unless the file names a store.

        What a demo makes up must wake nobody and move nobody's traffic: it tells its own receiver alone, and agrees
        with nobody but the processes on its store.
        """
        simulated = {key: ProviderSection(kind=ProviderKind.SIMULATED) for key in self.providers}
        named = "url" in self.store.model_fields_set
        store = self.store if named else self.store.model_copy(update={"url": DEMO_STORE})
        receivers = (_DEMO_RECEIVER,) if environ.get(DEMO_RECEIVER_VARIABLE) else ()
        alerts = self.alerts.model_copy(update={"receivers": receivers, "heartbeat_url_env": ""})
        fleet = self.fleet.model_copy(update={"url": FleetSection().url, "url_env": ""})
        changed = {"providers": simulated, "store": store, "alerts": alerts, "fleet": fleet}
        return replace(self, settings=self.settings.model_copy(update=changed), stands_in=True)


def http_url(host: str, port: int) -> str:
    """Where something that listens on an address is reached from this machine."""
    near = "127.0.0.1" if host in ("0.0.0.0", "::") else host.strip("[]")  # noqa: S104  # compared, not bound
    return f"http://{f'[{near}]' if ':' in near else near}:{port}"


def load(path: Path | str | None = None, environ: Mapping[str, str] = os.environ) -> Config:
    """Read the configuration.

    Args:
        path: The file; `None`: the one that `$SWITCHGEAR_CONFIG` names, else `./data/switchgear.toml`.
        environ: The environment.

    Raises:
        ConfigurationError: The file cannot be read or cannot work; a line per problem.
    """
    source = Path(path or environ.get(PATH_VARIABLE) or DEFAULT_PATH)
    try:
        data = tomllib.loads(source.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        example = shipped("switchgear.toml")
        what = f"there is no such file: pass --config FILE, set {PATH_VARIABLE}, or begin with a copy of {example}"
        problem = Problem("", what)
        raise failure(source, [problem]) from None
    except (OSError, UnicodeDecodeError) as error:
        problem = Problem("", f"cannot be read: {error}: make it a readable UTF-8 file, or pass --config FILE")
        raise failure(source, [problem]) from error
    except tomllib.TOMLDecodeError as error:
        raise failure(source, [Problem("", f"is not TOML: {error}: correct that line")]) from None
    return parse(data, source)


def parse(data: Mapping[str, Any], source: Path | str = "switchgear.toml") -> Config:
    """Validate what a file would hold.

    Args:
        data: The tables.
        source: The file's path, for messages and relative paths.

    Raises:
        ConfigurationError: It cannot work; a line per problem.
    """
    source = Path(source)
    try:
        settings = Settings.model_validate_json(json.dumps(data, default=str), strict=True)
    except ValidationError as error:
        raise failure(source, [*problems_of(error), *dangling(data)]) from None
    problems = [*dangling(data), *check(settings, source.parent)]
    if problems:
        raise failure(source, problems)
    return Config(source.absolute(), settings)
