"""README.md's tables are held to the code: what is configurable, callable, recorded or raised, and only that.

What a table lacks, or has too much, is named; the text beside it is for people and free.
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import sys
import tomllib
from collections.abc import Iterator
from contextlib import closing
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

import engine
from dashboard.cli import COMMANDS
from engine import sqlite
from engine.config import load
from engine.config.facts import FACT_KEYS
from engine.config.problems import known_keys
from engine.config.sections import ModelSection, Section, Settings
from engine.core.errors import SwitchgearError
from engine.durations import compact

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

PARTS_OF_OTHERS = {
    "jsonschema-specifications": "jsonschema",
    "pydantic-core": "pydantic",
    "referencing": "jsonschema",
    "typing-extensions": "pydantic",
}
"""Distributions imported by name that belong to a declared one and are pinned by it."""


def section(title: str) -> str:
    """The text under a heading, up to the next of the same or a higher level."""
    found = re.search(rf"^(#+) {re.escape(title)}$(.*?)(?=^#{{1,}} |\Z)", README, re.MULTILINE | re.DOTALL)
    assert found, f'README.md has no heading "{title}"'
    return found[2]


def rows(title: str) -> list[list[str]]:
    """The cells of the table under a heading, without its head."""
    lines = [line for line in section(title).splitlines() if line.startswith("|")]
    return [[cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


def first_words(title: str) -> set[str]:
    """Every `word` of the first column of the table under a heading."""
    return {word for row in rows(title) for word in re.findall(r"`([^`]+)`", row[0])}


# --- configuration ---------------------------------------------------------------------------------------------


def default_of(key: str) -> str:
    """The default of a key, as the file would say it."""
    *_, name = key.split(".")
    owner = _owner(key)
    if owner is ModelSection and name in FACT_KEYS:
        return "what is known"
    default = owner.model_fields[name].default
    if default is PydanticUndefined:
        return "required"
    if default is None:
        return "the manager's"
    return f"`{_toml(default, duration=_is_duration(owner, name))}`"


def _owner(key: str) -> type[Section]:
    model: Any = Settings
    for part in re.sub(r"\[\]|\.X(?=\.)", "", key).split(".")[:-1]:
        annotation = model.model_fields[part].annotation
        inner = [annotation, *getattr(annotation, "__args__", ())]
        model = next(item for item in inner if isinstance(item, type) and issubclass(item, BaseModel))
    return model  # type: ignore[no-any-return]


def _is_duration(owner: type[Section], name: str) -> bool:
    return "anyOf" in str(owner.model_json_schema(mode="validation")["properties"][name]) and name != "receivers"


def _toml(value: object, *, duration: bool) -> str:
    if duration and isinstance(value, float):
        return f'"{compact(value)}"'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and value >= 10_000:
        return f"{value:_}"
    if isinstance(value, tuple):
        return str(list(value))
    return f'"{value}"' if isinstance(value, str) else str(value)


def documented_keys() -> dict[str, str]:
    """Key and default of every row of the configuration reference."""
    return {row[0].strip("`"): row[1] for row in rows("Configuration reference")}


def test_every_configuration_key_is_documented_and_no_other() -> None:
    assert sorted(documented_keys()) == sorted(known_keys())


@pytest.mark.parametrize("key", list(known_keys()))
def test_every_default_is_the_documented_one(key: str) -> None:
    assert documented_keys()[key] == default_of(key)


def test_the_example_configuration_of_the_readme_is_valid(tmp_path: Path) -> None:
    for number, text in enumerate(re.findall(r"```toml\n(.*?)```", README, re.DOTALL)):
        path = tmp_path / f"{number}.toml"
        path.write_text(text, encoding="utf-8")
        load(path)


# --- commands, targets, dependencies ---------------------------------------------------------------------------


def test_every_command_is_documented_and_no_other() -> None:
    assert {words.split()[1] for words in first_words("Command line")} == set(COMMANDS)


def test_every_make_target_is_documented_and_no_other() -> None:
    targets = re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert {words.split()[1] for words in first_words("Make targets")} == set(targets)


def requirements() -> dict[str, str]:
    """Normalised name of every declared dependency, with the group it is in."""
    groups = {"": PROJECT["dependencies"], **PROJECT["optional-dependencies"]}
    return {_normal(re.split(r"[<>=;\[ ]", item)[0]): group for group, items in groups.items() for item in items}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_dependency_earns_its_place_in_the_table() -> None:
    assert {_normal(name) for name in first_words("Dependencies")} == set(requirements())


def test_every_dependency_has_bounds_and_an_exact_version_in_the_constraints() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {_normal(line.split("==")[0]) for line in lines}
    assert all("==" in line for line in lines)
    assert set(requirements()) <= pinned
    groups = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    unbounded = [item for group in groups for item in group if "<" not in item and not item.startswith("types-")]
    assert unbounded == []


def imported(package: str) -> Iterator[tuple[str, Path]]:
    """Top-level names of everything a package imports, with the importing file."""
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from ((alias.name.partition(".")[0], path) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                yield node.module.partition(".")[0], path


def test_what_is_imported_is_declared() -> None:
    distributions = packages_distributions()
    declared = {name for name, group in requirements().items() if group != "dev"}
    undeclared = {}
    for package in ("engine", "alerts", "dashboard"):
        for name, path in imported(package):
            if name in sys.stdlib_module_names or name in ("engine", "alerts", "dashboard", "google"):
                continue
            owners = {_normal(owner) for owner in distributions.get(name, [name])}
            if not {PARTS_OF_OTHERS.get(owner, owner) for owner in owners} & declared:
                undeclared[name] = str(path.relative_to(ROOT))
    assert undeclared == {}


# --- what is raised, recorded and measured ----------------------------------------------------------------------


def error_classes(base: type[SwitchgearError] = SwitchgearError) -> set[type[SwitchgearError]]:
    """Every error of `engine.core.errors`."""
    found = {base} if base.__module__ == "engine.core.errors" else set()
    return found.union(*map(error_classes, base.__subclasses__()))


def test_every_error_code_is_documented_with_its_status() -> None:
    raised = {(error.code, str(error.status_code)) for error in error_classes() if error.code != "configuration"}
    documented = {(row[0].strip("`"), row[1]) for row in rows("Errors")}
    assert documented == raised


@cache
def tables() -> dict[str, set[str]]:
    """Every table of a fresh store with its columns."""
    schema = pytest.importorskip("engine.schema")
    with closing(sqlite.sqlite3.connect(":memory:")) as connection:
        schema.migrate(connection)
        names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {
            name: {row[1] for row in connection.execute(f"PRAGMA table_info({name})")}
            for name in names
            if not name.startswith(("_", "sqlite_"))
        }


def test_every_table_is_documented_and_no_other() -> None:
    assert first_words("Tables") == set(tables())


def test_the_columns_that_others_may_rely_on_exist() -> None:
    lacking = {}
    for row in rows("Tables"):
        promised = {word for cell in row[2:] for text in re.findall(r"`([^`]+)`", cell) for word in text.split()}
        for name in re.findall(r"`([^`]+)`", row[0]):
            if promised - tables()[name]:
                lacking[name] = promised - tables()[name]
    assert lacking == {}


def families_in_code() -> set[str]:
    """Metric families named in the engine's and the alerts' source; a counter's name there lacks its `_total`."""
    names = set()
    for package in ("engine", "alerts"):
        for path in (ROOT / package).rglob("*.py"):
            names |= set(re.findall(r"\bdualmodelmanager_[a-z0-9_]*[a-z0-9]\b", path.read_text(encoding="utf-8")))
    return {name.removesuffix("_total") for name in names}


def test_every_metric_family_is_documented_and_no_other() -> None:
    documented = {word.partition("{")[0].removesuffix("_total") for word in first_words("Metrics")}
    assert documented == families_in_code()


# --- code -------------------------------------------------------------------------------------------------------


def test_every_module_says_what_it_guarantees() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for package in ("engine", "alerts", "dashboard")
        for path in (ROOT / package).rglob("*.py")
        if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert silent == []


def test_every_module_of_the_engine_can_be_imported_alone() -> None:
    for module in pkgutil.iter_modules(engine.__path__, "engine."):
        importlib.import_module(module.name)
