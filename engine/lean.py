"""Importing a library without what it merely makes use of where that is installed.

pandas comes with Streamlit, so it is on every machine that has Switchgear. A library that imports it just in case
makes a gateway carry some ninety megabytes that it never uses.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType


class _Absent:
    """A finder that knows some packages as not installed, for one thread; others import them as ever."""

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names
        self._thread = threading.get_ident()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname in self._names and threading.get_ident() == self._thread:
            msg = f"{fullname} is left out here"
            raise ModuleNotFoundError(msg, name=fullname)
        return None


@contextmanager
def without(*packages: str) -> Iterator[None]:
    """Import inside the block as if these packages were not installed, unless they have been imported already.

    Args:
        packages: Names of optional packages.
    """
    finder = _Absent(frozenset(packages))
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
