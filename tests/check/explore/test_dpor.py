# SPDX-License-Identifier: GPL-2.0-only
"""`dpor` against `dfs`, which knows nothing of independence, on programs without a kernel."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmaplab.check.explore import dfs, dpor
from rmaplab.check.explore.result import Budget, Result
from tests.support.toy import Toy

ANY = Budget(executions=3_000)


def both(programs: Any) -> tuple[Result, Result]:
    options = {"all_violations": True, "keep_states": True, "keep_signatures": True}
    lab: Any = Toy(programs)
    return dpor.explore(lab, ANY, **options), dfs.explore(lab, ANY, **options)


def same(programs: Any) -> tuple[Result, Result]:
    """One execution a trace, the same final states, the same violations."""
    reduced, all_of_them = both(programs)
    assert all_of_them.complete and reduced.complete
    assert len(reduced.signatures) == reduced.executions, "a trace was executed twice"
    assert reduced.signatures == all_of_them.signatures
    assert reduced.states == all_of_them.states
    assert {str(f.violation) for f in reduced.found} == {str(f.violation) for f in all_of_them.found}
    return reduced, all_of_them


@pytest.mark.parametrize(
    ("programs", "traces", "interleavings"),
    [
        # two independent writes: one trace, two orders
        ([[("w", "x", 1)], [("w", "y", 1)]], 1, 2),
        # two writes of one cell: two traces
        ([[("w", "x", 1)], [("w", "x", 2)]], 2, 2),
        # three writers of one cell: 3! orders
        ([[("w", "x", 1)], [("w", "x", 2)], [("w", "x", 3)]], 6, 6),
        # two readers and a writer: before both, after both, after one (two ways)
        ([[("r", "x")], [("r", "x")], [("w", "x", 1)]], 4, 6),
        # store buffering: the four interleavings of conflicting pairs less the cyclic one: 3 traces
        ([[("w", "x", 1), ("r", "y")], [("w", "y", 1), ("r", "x")]], 3, 6),
        # sections under one lock: two orders
        ([[("W", "A", [("w", "x", 1)])], [("W", "A", [("w", "x", 2)])]], 2, None),
        # sections under a lock shared by readers, and a writer: as for cells
        ([[("R", "A", [])], [("R", "A", [])], [("W", "A", [])]], 4, None),
        # a choice of two, twice, independent: four traces
        ([[("choice", "x", 2)], [("choice", "x", 2)]], 4, 8),
        # the first example of the paper (figure 1): a writer of x, and two readers of own cells and x
        ([[("w", "x", 1)], [("r", "y"), ("r", "x")], [("r", "z"), ("r", "x")]], 4, 30),
    ],
)
def test_counts_by_hand(programs: Any, traces: int, interleavings: int | None) -> None:
    reduced, all_of_them = same(programs)
    assert reduced.executions == traces
    if interleavings is not None:
        assert all_of_them.executions == interleavings


def test_deadlock_is_found() -> None:
    """A then B, against B then A."""
    programs = [[("W", "A", [("W", "B", [])])], [("Wt", "B", [("r", "x")])]]
    same(programs)
    crossed = [[("Wt", "A", [("Wt", "B", [])])], [("Wt", "B", [("Wt", "A", [])])]]
    reduced, _ = same(crossed)
    assert [f.violation.name for f in reduced.found] == ["deadlock"]


def test_a_violation_that_only_one_order_shows() -> None:
    reduced, _ = same([[("w", "x", 1), ("w", "x", 2)], [("assert", "x", 1)]])
    assert len(reduced.found) == 1


def test_trylock_fails_only_while_the_lock_is_held() -> None:
    """Before, during (three places between take and release), after: five states of what the other sees."""
    reduced, _ = same([[("Wt", "A", [("w", "x", 1)])], [("try", "A", [("r", "x")]), ("r", "x")]])
    assert reduced.executions >= 4


cells = st.sampled_from("xyz")
locks = st.sampled_from("AB")
leaf = st.one_of(
    st.tuples(st.just("r"), cells),
    st.tuples(st.just("w"), cells, st.integers(1, 3)),
    st.tuples(st.just("rmw"), cells, st.integers(1, 3)),
)
section = st.one_of(
    st.tuples(st.sampled_from(["R", "W", "Wt"]), locks, st.lists(leaf, max_size=2)),
    st.tuples(st.just("try"), locks, st.lists(leaf, max_size=1)),
    st.tuples(st.just("choice"), st.just("x"), st.just(2)),
)
operation = st.one_of(leaf, leaf, section)
two = st.lists(st.lists(operation, min_size=1, max_size=3), min_size=2, max_size=2)
three = st.lists(st.lists(operation, min_size=1, max_size=2), min_size=3, max_size=3)


@settings(max_examples=60, deadline=None)
@given(st.one_of(two, three))
def test_random_programs(programs: Any) -> None:
    """Catches: a dependency forgotten (states or violations missing), too many (a trace twice), a wrong source set."""
    if both(programs)[1].complete:
        same(programs)
