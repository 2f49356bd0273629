"""Latency in logarithmic buckets: percentiles within 1 %, sums that merge by adding.

The mapping is DDSketch's (Masson, Rim, Lee: "DDSketch: a fast and fully-mergeable quantile sketch", VLDB 2019) with
a base of 2 to the power of 1/35, a relative error of 0.99 %. That base is chosen so that 10 ms times any power of
two is the upper edge of a bucket: Prometheus' histograms on those boundaries are exact counts, not estimates.

Bucket `i` holds `10 ms * base**(i - 1) < x <= 10 ms * base**i`. The sum of counts per bucket is all that is stored.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

PER_DOUBLING = 35
BASE = 2 ** (1 / PER_DOUBLING)
RELATIVE_ERROR = (BASE - 1) / (BASE + 1)
UNIT_MS = 10.0
SMALLEST_MS = 0.01
LARGEST_MS = 86_400_000.0

BOUNDARIES_S = tuple(0.01 * 2**k for k in range(14))
"""Boundaries of the request histograms: 10 ms doubling to 81.92 s."""

COMMIT_BOUNDARIES_S = tuple(0.01 * 2.0**k for k in range(-7, 8))
"""Boundaries of the commit histogram: 78 µs doubling to 1.28 s."""


def bucket_of(milliseconds: float) -> int:
    """The bucket of a duration.

    Args:
        milliseconds: Any duration; what lies outside 10 µs to one day counts as that bound.
    """
    bounded = min(max(milliseconds, SMALLEST_MS), LARGEST_MS)
    return math.ceil(PER_DOUBLING * math.log2(bounded / UNIT_MS))


def middle_of(bucket: int) -> float:
    """The estimate for a value of this bucket, milliseconds; off by `RELATIVE_ERROR` at most."""
    return float(UNIT_MS * 2 * BASE**bucket / (BASE + 1))


def quantile(counts: Mapping[int, int] | Iterable[tuple[int, int]], q: float) -> float | None:
    """The value below or at which a share `q` of the observations lies.

    Args:
        counts: Observations by bucket.
        q: The share, 0..1.

    Returns:
        Milliseconds, or `None` without any observation.
    """
    pairs = sorted(counts.items() if isinstance(counts, Mapping) else counts)
    total = sum(n for _, n in pairs)
    if total <= 0:
        return None
    rank = max(1, math.ceil(q * total))
    seen = 0
    for bucket, n in pairs:
        seen += n
        if seen >= rank:
            return middle_of(bucket)
    return middle_of(pairs[-1][0])


def cumulative(counts: Mapping[int, int], boundaries_s: Sequence[float] = BOUNDARIES_S) -> list[tuple[float, int]]:
    """Observations at or below each boundary, as a Prometheus histogram wants them.

    Args:
        counts: Observations by bucket.
        boundaries_s: Ascending boundaries in seconds, each 10 ms times a power of two.

    Returns:
        Boundary in seconds and cumulative count; the last boundary is infinity.
    """
    pairs = sorted(counts.items())
    result: list[tuple[float, int]] = []
    seen = at = 0
    for boundary in boundaries_s:
        edge = round(PER_DOUBLING * math.log2(boundary * 1000 / UNIT_MS))
        while at < len(pairs) and pairs[at][0] <= edge:
            seen += pairs[at][1]
            at += 1
        result.append((boundary, seen))
    result.append((math.inf, seen + sum(n for _, n in pairs[at:])))
    return result
