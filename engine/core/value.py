"""`@value`: immutable to the type checker, a plain slotted dataclass at run time.

A frozen dataclass sets every field through `object.__setattr__`, which makes a record of thirty fields cost several
microseconds. The values of the request path are made for every call, so their immutability is checked where all
code is checked anyway, by mypy, and costs nothing while requests run. Values of the public interface are frozen.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def value(cls: type[T]) -> type[T]:
    """Make a class a value of the request path: slots, equality, a hash, and fields nobody assigns."""
    return dataclass(slots=True, unsafe_hash=True)(cls)
