# SPDX-License-Identifier: GPL-2.0-only
from rmaplab.replay.series import Series


def series(*rows: tuple[int, ...]) -> Series:
    result = Series(len(rows[0]) - 1)
    for row in rows:
        result.add(*row)
    return result


def test_counts_hold_until_the_next_change() -> None:
    s = series((2, 1, 0, 0), (5, 2, 1, 1))
    assert [s.at(row) for row in (0, 2, 4, 5, 9)] == [(0, 0, 0), (1, 0, 0), (1, 0, 0), (2, 1, 1), (2, 1, 1)]


def test_a_design_with_caches_of_its_own_has_more_columns() -> None:
    s = series((0, 1, 0, 0, 7))
    assert s.at(0) == (1, 0, 0, 7)
    assert Series(4).at(3) == (0, 0, 0, 0)


def test_the_peak_weighs_objects_with_their_sizes_and_is_the_first_of_equals() -> None:
    s = series((0, 9, 0, 0), (1, 0, 0, 3), (2, 0, 3, 0), (3, 1, 1, 1))
    assert s.peak((1, 4, 4)) == 1
    assert s.peak((2, 1, 1)) == 0
    assert Series().peak((1, 1, 1)) == 0


def test_maxima_take_in_what_was_live_when_the_stretch_began() -> None:
    s = series((0, 5, 0, 0, 1), (3, 2, 4, 0, 2), (4, 1, 0, 6, 9), (7, 0, 0, 0, 0))
    assert s.maxima((0, 3, 5, 8)) == [(5, 0, 0, 1), (2, 4, 6, 9), (1, 0, 6, 9)]
