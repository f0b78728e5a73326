# SPDX-License-Identifier: GPL-2.0-only
"""Live objects over the course of a replay."""

from array import array
from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from operator import mul

from rmaplab.mm.kernel import CACHE_NAMES

__all__ = ["Series"]

Counts = tuple[int, ...]
"""Live objects of each cache: vm_area_struct, anon_vma, anon_vma_chain, then those of the design."""


class Series:
    """Live objects of the caches, by row; only rows that change them are stored."""

    def __init__(self, caches: int = len(CACHE_NAMES)) -> None:
        self.rows = array("q")
        self.counts = tuple(array("q") for _ in range(caches))

    def add(self, row: int, *counts: int) -> None:
        """After `row` this many objects are live."""
        self.rows.append(row)
        for column, value in zip(self.counts, counts, strict=True):
            column.append(value)

    def at(self, row: int) -> Counts:
        """Live objects after `row`."""
        i = bisect_right(self.rows, row) - 1
        if i < 0:
            return (0,) * len(self.counts)
        return tuple(column[i] for column in self.counts)

    def peak(self, slot_sizes: Sequence[int]) -> int:
        """The first row after which the objects, weighted with their sizes in bytes, take most memory."""
        best, best_row = -1, 0
        for row, *counts in zip(self.rows, *self.counts, strict=True):
            size = sum(map(mul, counts, slot_sizes))
            if size > best:
                best, best_row = size, row
        return best_row

    def maxima(self, edges: Sequence[int]) -> list[Counts]:
        """For each stretch of rows [edges[i], edges[i + 1]) the largest count of each cache in it."""
        result = []
        i = 0
        for low, high in pairwise(edges):
            most = list(self.at(low))
            while i < len(self.rows) and self.rows[i] < high:
                if self.rows[i] >= low:
                    most = [max(m, column[i]) for m, column in zip(most, self.counts, strict=True)]
                i += 1
            result.append(tuple(most))
        return result
