"""What two settings may be together, and whether what a setting refers to exists."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

from engine.config.exposure import unnamed_key_problems
from engine.config.policies import BOUNDS, manager_timeouts
from engine.config.problems import Problem
from engine.config.sections import (
    AlertsSection,
    BreakerSection,
    ManagerSection,
    ModelTimeoutsSection,
    ProviderKind,
    ProviderSection,
    ReceiverKind,
    ReceiverSection,
    RetrySection,
    Settings,
)
from engine.core.policy import Timeouts
from engine.durations import compact

FLEET_SCHEMES = ("redis", "rediss", "etcd", "etcds", "zookeeper", "zookeepers")

_MATCHER = re.compile(r'^\s*[A-Za-z_][A-Za-z0-9_]*\s*(=~|!~|!=|=)\s*("(?:[^"\\]|\\.)*"|[^\s"{},]+)\s*$')


def check(settings: Settings, folder: Path) -> list[Problem]:
    """Everything that pydantic cannot see in one section.

    Args:
        settings: The file, valid section by section.
        folder: Where the file is; relative paths start there.

    Returns:
        All problems, in the order of the file's sections.
    """
    problems = [*_store(settings), *unnamed_key_problems(settings), *_fleet(settings)]
    for key, provider in settings.providers.items():
        problems += _provider(f"providers.{key}", provider)
    for key, model in settings.models.items():
        problems += _model_clocks(f"models.{key}.timeouts", model.timeouts)
    if not settings.managers:
        problems.append(
            Problem("managers", 'there is none: add [managers.chat] with primary = "…" and secondary = "…"')
        )
    for key, manager in settings.managers.items():
        problems += _manager(f"managers.{key}", manager, folder)
    return [*problems, *_alerts(settings.alerts)]


def dangling(data: Mapping[str, Any]) -> Iterator[Problem]:
    """Names of providers and models that the file does not hold.

    Args:
        data: The tables as they are written, because such a mistake is told whatever else is wrong beside it.
    """
    for table, keys, target in (
        ("models", ("provider",), "providers"),
        ("managers", ("primary", "secondary"), "models"),
    ):
        known = _tables(data, target)
        for one, settings in _tables(data, table).items():
            for key in keys:
                name = settings.get(key) if isinstance(settings, dict) else None
                if isinstance(name, str) and name not in known:
                    yield _dangling(f"{table}.{one}.{key}", name, target, known)


def _tables(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = data.get(name)
    return found if isinstance(found, dict) else {}


def _store(settings: Settings) -> Iterator[Problem]:
    url = settings.store.url
    if url.startswith(("postgres:", "postgresql:")):
        yield Problem("store.url", 'PostgreSQL is not supported yet: write "sqlite:///switchgear.db"')
    elif not url.startswith("sqlite:///") or url.removeprefix("sqlite:///") in ("", ":memory:"):
        yield Problem(
            "store.url",
            'is no database file: write "sqlite:///switchgear.db" (beside this file) or "sqlite:////absolute/path.db"',
        )


def _fleet(settings: Settings) -> Iterator[Problem]:
    url = settings.fleet.url
    if url == "store":
        return
    parts = urlsplit(url)
    if parts.scheme not in FLEET_SCHEMES or not parts.netloc:
        yield Problem(
            "fleet.url",
            'is no coordinator: write "store", "redis://host:6379", "etcd://host:2379" or "zookeeper://host:2181"',
        )
    elif parts.password:
        yield Problem(
            "fleet.url",
            "holds a password: put the whole URL into an environment variable and name that, "
            'url_env = "SWITCHGEAR_FLEET_URL"',
        )


def _provider(key: str, provider: ProviderSection) -> Iterator[Problem]:
    url = provider.base_url
    if not url:
        return
    key = f"{key}.base_url"
    parts = _split(url)
    if provider.kind is ProviderKind.SIMULATED:
        yield Problem(key, "a simulated provider has no endpoint: remove it")
    elif parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
        yield Problem(key, "is no address: write http://host:port or https://host")
    elif parts.username or parts.password or parts.query or parts.fragment:
        yield Problem(
            key,
            "holds more than an address: remove user, password, query and fragment; "
            "the variable of the key goes to api_key_env",
        )
    elif provider.kind is ProviderKind.OPENAI:
        yield from _openai_path(key, parts)
    elif parts.path not in ("", "/"):
        yield Problem(key, f'must be the bare root for kind "{provider.kind}": write "{parts.scheme}://{parts.netloc}"')


def _openai_path(key: str, parts: SplitResult) -> Iterator[Problem]:
    root = f"{parts.scheme}://{parts.netloc}"
    if parts.path in ("", "/"):
        yield Problem(key, f'lacks its path, which for kind "openai" ends in /v1: write "{root}/v1"')
    elif parts.path.rstrip("/").endswith("/chat/completions"):
        kept = parts.path.rstrip("/").removesuffix("/chat/completions")
        yield Problem(key, f'ends in /chat/completions, which is added by itself: write "{root}{kept}"')


def _manager(key: str, manager: ManagerSection, folder: Path) -> Iterator[Problem]:
    if manager.primary == manager.secondary:
        yield Problem(
            f"{key}.secondary",
            f'"{manager.secondary}" is the primary too: name another model, or nothing can take over',
        )
    yield from _clocks(f"{key}.timeouts", manager_timeouts(manager.timeouts), manager.timeouts.model_fields_set)
    yield from _pair(f"{key}.retry", manager.retry, "base_delay", "max_delay")
    yield from _pair(f"{key}.breaker", manager.breaker, "open_for", "open_max")
    yield from _stages(f"{key}.recovery.stages", manager.recovery.stages)
    canaries = manager.validation.canaries
    if canaries and not (folder / canaries).is_file():
        yield Problem(
            f"{key}.validation.canaries", f'there is no file "{folder / canaries}": create it, or set canaries = ""'
        )


def _clocks(key: str, clocks: Timeouts, written: Collection[str]) -> Iterator[Problem]:
    for shorter, longer in BOUNDS:
        limit, value = getattr(clocks, longer), getattr(clocks, shorter)
        if shorter in written and value > limit:
            source = "" if longer in written else ", the default"
            what = f"{compact(value)} is longer than {longer} ({compact(limit)}{source}): lower it, or raise {longer}"
            yield Problem(f"{key}.{shorter}", what)


def _model_clocks(key: str, section: ModelTimeoutsSection) -> Iterator[Problem]:
    own = section.model_dump(exclude_none=True)
    pairs = [pair for pair in BOUNDS if own.keys() >= set(pair)]
    for shorter, longer in pairs:
        if own[shorter] > own[longer]:
            what = (
                f"{compact(own[shorter])} is longer than {longer} ({compact(own[longer])}): lower it, or raise {longer}"
            )
            yield Problem(f"{key}.{shorter}", what)


def _pair(key: str, section: RetrySection | BreakerSection, low: str, high: str) -> Iterator[Problem]:
    least, most = getattr(section, low), getattr(section, high)
    if {low, high} <= section.model_fields_set and least > most:
        what = f"{compact(most)} is shorter than {low} ({compact(least)}): raise it, or lower {low}"
        yield Problem(f"{key}.{high}", what)


def _stages(key: str, stages: tuple[float, ...]) -> Iterator[Problem]:
    rising = all(one < other for one, other in pairwise(stages))
    if not stages or not rising or stages[-1] != 1.0:
        yield Problem(key, f"{list(stages)} must rise and end at 1.0: write stages = [0.1, 0.25, 0.5, 1.0]")


def _alerts(alerts: AlertsSection) -> Iterator[Problem]:
    for name, times in Counter(receiver.name for receiver in alerts.receivers).items():
        if times > 1:
            yield Problem("alerts.receivers", f'{times} receivers are named "{name}": rename all but one')
    for index, receiver in enumerate(alerts.receivers):
        yield from _receiver(f"alerts.receivers[{index}]", receiver)


def _receiver(key: str, receiver: ReceiverSection) -> Iterator[Problem]:
    if receiver.url and receiver.url_env:
        yield Problem(key, "has both url and url_env: keep one of them")
    if receiver.kind is ReceiverKind.PAGERDUTY:
        if not receiver.secret_env:
            yield Problem(
                f"{key}.secret_env",
                'is missing: name the variable with the routing key, secret_env = "PAGERDUTY_ROUTING_KEY"',
            )
    elif not receiver.url and not receiver.url_env:
        yield Problem(
            key, 'has no address: add url_env = "SWITCHGEAR_WEBHOOK_URL", or url = "…" when it holds no secret'
        )
    if receiver.url and receiver.kind is not ReceiverKind.APPRISE:
        parts = _split(receiver.url)
        if parts is None or parts.scheme not in ("http", "https") or not parts.hostname:
            yield Problem(f"{key}.url", "is no address: write https://host/path")
        elif parts.password:
            yield Problem(
                f"{key}.url",
                "holds a password: put the whole address into an environment variable and name that, "
                'url_env = "SWITCHGEAR_WEBHOOK_URL"',
            )
    for matcher in receiver.matchers:
        if not _MATCHER.match(matcher):
            yield Problem(
                f"{key}.matchers",
                f"{matcher!r} is no matcher: write 'severity=\"critical\"' or 'alertname=~\"Failover.*\"'",
            )


def _dangling(key: str, name: str, table: str, known: Collection[str]) -> Problem:
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return Problem(key, f'there is no [{table}.{name}]: did you mean "{near[0]}"?')
    return Problem(
        key, f"there is no [{table}.{name}]: add it" + (f", or name one of {', '.join(sorted(known))}" if known else "")
    )


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return parts
