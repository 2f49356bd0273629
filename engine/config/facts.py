"""What is known about common models, from `data/models.toml`: windows, capabilities and prices by provider's name.

A `[models.X]` of the configuration overrides field by field, so a fact that has changed is corrected in one line.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from functools import cache
from typing import Any

from engine.config.sections import ModelSection
from engine.core.policy import ModelFacts, Timeouts
from engine.shipped import shipped

FACT_KEYS = (
    "context_window",
    "max_output_tokens",
    "capabilities",
    "input_price",
    "output_price",
    "requests_per_minute",
    "tokens_per_minute",
)

_VERSION = re.compile(
    r"(-latest|-\d{3}|-\d{4}-\d{2}-\d{2}|-\d{2}-\d{4}|-\d{2}-\d{2}|-\d{4}|-preview|-exp|-instruct|:[\w.-]+)$"
)


@cache
def shipped_facts() -> Mapping[str, Mapping[str, Any]]:
    """Every fact of `data/models.toml`, by the provider's name of the model."""
    return tomllib.loads(shipped("models.toml").read_text(encoding="utf-8"))


def known(name: str) -> Mapping[str, Any]:
    """What is shipped about a model.

    Args:
        name: The provider's name; a leading `models/` or vendor, and trailing versions, dates and tags
            (`-001`, `-2024-08-06`, `-latest`, `:8b`), are left out step by step until a name is known.

    Returns:
        Its facts, empty when nothing is known.
    """
    facts = shipped_facts()
    candidate = name.lower()
    if candidate not in facts:
        candidate = candidate.rsplit("/", 1)[-1]
    while candidate not in facts:
        shorter = _VERSION.sub("", candidate)
        if shorter == candidate:
            return {}
        candidate = shorter
    return facts[candidate]


def model_facts(key: str, section: ModelSection, timeouts: Timeouts) -> ModelFacts:
    """Merge what is shipped with what the configuration says; the configuration wins, 0 means unknown.

    Args:
        key: The model's name in the configuration.
        section: Its table.
        timeouts: Its clocks, already merged with the manager's.
    """
    written = {fact: getattr(section, fact) for fact in FACT_KEYS if fact in section.model_fields_set}
    facts: dict[str, Any] = {**known(section.name), **written}
    if "capabilities" in facts:
        facts["capabilities"] = frozenset(facts["capabilities"])
    merged: dict[str, Any] = {fact: value if fact == "capabilities" else value or None for fact, value in facts.items()}
    return ModelFacts(key=key, name=section.name, provider=section.provider, timeouts=timeouts, **merged)
