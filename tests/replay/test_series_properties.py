# SPDX-License-Identifier: GPL-2.0-only
"""Series against a list that simply holds the counts after each row."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from rmaplab.replay.series import Series

COUNTS = st.tuples(*[st.integers(0, 6)] * 3)
# counts after each row, or None where nothing changed
ROWS = st.lists(st.one_of(st.none(), COUNTS), min_size=1, max_size=30)
SIZES = st.tuples(*[st.integers(1, 300)] * 3)


def both(rows: list[tuple[int, int, int] | None]) -> tuple[Series, list[tuple[int, ...]]]:
    """The series, and the counts after every row."""
    series, dense = Series(), []
    now: tuple[int, ...] = (0, 0, 0)
    for row, counts in enumerate(rows):
        if counts is not None:
            series.add(row, *counts)
            now = counts
        dense.append(now)
    return series, dense


@given(ROWS)
def test_at(rows: list[tuple[int, int, int] | None]) -> None:
    """A row between two changes that takes the later one's counts."""
    series, dense = both(rows)
    assert [series.at(row) for row in range(len(rows))] == dense


@given(ROWS, SIZES)
def test_peak(rows: list[tuple[int, int, int] | None], sizes: tuple[int, ...]) -> None:
    """A peak that is not the most bytes, or a later one of two equals."""
    series, dense = both(rows)
    weights = [sum(c * s for c, s in zip(counts, sizes, strict=True)) for counts in dense]
    assert weights[series.peak(sizes)] == max(weights)
    assert series.peak(sizes) == weights.index(max(weights)) or not any(weights)


@given(ROWS, st.data())
def test_maxima(rows: list[tuple[int, int, int] | None], data: st.DataObject) -> None:
    """A stretch that forgets what was live when it began, skips a change at its edge, or takes its neighbour's."""
    series, dense = both(rows)
    inner = data.draw(st.lists(st.integers(0, len(rows)), max_size=6))
    edges = sorted([0, *inner, len(rows)])
    for (low, high), maxima in zip(pairwise(edges), series.maxima(edges), strict=True):
        # an empty stretch holds what is live at its edge
        stretch = dense[low:high] or [series.at(low)]
        assert maxima == tuple(max(column) for column in zip(*stretch, strict=True))
