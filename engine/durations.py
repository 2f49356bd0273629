"""Durations as people write and read them. Everywhere else a duration is float seconds.

This is the one place that parses them (configuration, alert rules, command line) and the one that renders them
(dashboard, messages, errors).
"""

from __future__ import annotations

import math
import re
from typing import Final

UNITS: Final = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
LONGEST: Final = 100 * 365 * UNITS["d"]

_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[dhms])")
_SPOKEN: Final = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))


class DurationError(ValueError):
    """Text or a number that is no duration; the message says how to write one."""


def parse_duration(value: object) -> float:
    """Read a duration.

    Args:
        value: Seconds as a number, or text such as `500ms`, `30s`, `15m`, `4h`, `7d`, `1h30m` (larger units first).

    Returns:
        Seconds, zero or more.

    Raises:
        DurationError: It is negative, not finite, longer than a hundred years, or not a duration at all.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        msg = f'{value!r} is not a duration: write seconds as a number, or text such as "30s"'
        raise DurationError(msg)
    seconds = _from_text(value) if isinstance(value, str) else value
    if isinstance(seconds, float) and not math.isfinite(seconds):
        msg = f"{value!r} is not a finite number of seconds"
        raise DurationError(msg)
    if seconds < 0:
        msg = f"{value!r} is negative: a duration is zero or more"
        raise DurationError(msg)
    if seconds > LONGEST:
        msg = f"{value!r} is longer than a hundred years"
        raise DurationError(msg)
    return float(seconds)


def _from_text(text: str) -> float:
    compact = text.strip()
    parts = _PART.findall(compact)
    units = [unit for _, unit in parts]
    ordered = sorted(set(units), key=list(UNITS).index)
    if not parts or "".join(number + unit for number, unit in parts) != compact or units != ordered:
        hint = (
            f'write {compact} without quotes, or "{compact}s"'
            if _is_number(compact)
            else 'write "500ms", "30s", "15m", "4h" or "7d"'
        )
        msg = f"{text!r} is not a duration: {hint}"
        raise DurationError(msg)
    return math.fsum(float(number) * UNITS[unit] for number, unit in parts)


def _is_number(text: str) -> bool:
    return re.fullmatch(r"\d+(\.\d+)?", text) is not None


def describe(seconds: float) -> str:
    """Say a duration to a person: `350 ms`, `12 s`, `17 min`, `2 h 5 min`, `3 d 4 h`.

    Args:
        seconds: The duration; what is below zero (a clock read twice) is said as zero.

    Returns:
        At most two units, rounded to the smaller one; the smaller is left out when it is zero.
    """
    seconds = max(0.0, seconds)
    if seconds < 0.9995:
        return f"{round(seconds * 1000)} ms" if seconds else "0 s"
    if seconds < 9.95:
        return f"{seconds:.1f} s".replace(".0 s", " s")
    for index, (unit, size) in enumerate(_SPOKEN[:-1]):
        smaller, step = _SPOKEN[index + 1]
        steps = round(seconds / step)
        if steps * step >= size:
            whole, rest = divmod(steps, size // step)
            return f"{whole} {unit} {rest} {smaller}" if rest else f"{whole} {unit}"
    return f"{round(seconds)} s"


def compact(seconds: float) -> str:
    """Write a duration the way the configuration does, exactly to the millisecond: `1h30m`, `15s`, `500ms`."""
    rest = round(seconds * 1000)
    text = ""
    for unit, size in UNITS.items():
        whole, rest = divmod(rest, round(size * 1000))
        text += f"{whole}{unit}" if whole else ""
    return text or "0s"
