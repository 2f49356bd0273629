"""Histograms as one large whole number each, 64 bits a bucket: adding two is one addition, however many buckets."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

BITS = 64


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts of buckets in a row.

    Attributes:
        low: The first bucket.
        number: The counts, that of `low` in the lowest bits.
    """

    low: int
    number: int

    @classmethod
    def of(cls, counts: Mapping[int, int]) -> Histogram:
        """Pack counts by bucket; there must be one at least."""
        low, high = min(counts), max(counts)
        dense = [counts.get(bucket, 0) for bucket in range(low, high + 1)]
        return cls(low, int.from_bytes(struct.pack(f"<{len(dense)}Q", *dense), "little"))

    def __neg__(self) -> Histogram:
        """What takes this away from a sum that it is in."""
        return Histogram(self.low, -self.number)

    def counts(self) -> Iterator[tuple[int, int]]:
        """Buckets that hold something with their counts, ascending."""
        size = -(-self.number.bit_length() // BITS)
        dense = struct.unpack(f"<{size}Q", self.number.to_bytes(size * BITS // 8, "little"))
        return ((bucket, count) for bucket, count in enumerate(dense, self.low) if count)


def total(histograms: Iterable[Histogram]) -> Histogram:
    """The sum of histograms."""
    found = list(histograms)
    low = min((one.low for one in found), default=0)
    return Histogram(low, sum(one.number << (one.low - low) * BITS for one in found))


def difference(one: Histogram, part: Histogram) -> Histogram:
    """A sum of histograms without one that is in it."""
    return total((one, -part))
