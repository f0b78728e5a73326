# SPDX-License-Identifier: GPL-2.0-only
"""Cost figures: small worlds whose walks can be counted by hand, and a bundled recording."""

from collections import Counter

import pytest

from rmaplab.designs.anon_vma import AnonVmaDesign
from rmaplab.designs.cow_context import CowContextDesign
from rmaplab.designs.registry import make_design
from rmaplab.designs.vma_set import VmaSetDesign
from rmaplab.mm.fork import dup_mm
from rmaplab.mm.hooks import Hooks
from rmaplab.mm.kernel import Kernel
from rmaplab.mm.profile import V6_18
from rmaplab.replay.cost import _percentile, measure_cost, measure_walks
from rmaplab.report.cost import cost_json, cost_lines
from rmaplab.trace.bundled import bundled_path
from rmaplab.trace.schema import Trace
from rmaplab.trace.source import open_trace
from tests.support.builders import link, make_kernel, write

ROW = 5000  # of the recording of redis: several processes, forks, many faults


def world(design: Hooks) -> Kernel:
    """1 forks 2; of two shared pages 2 has copied one. Three folios."""
    kernel = make_kernel(design=design)
    mm = kernel.mm_alloc()
    link(mm, 0, 2, fault=True)
    write(mm, 1)
    child = dup_mm(mm)
    write(child, 1)
    return kernel


@pytest.mark.parametrize(
    ("design", "visits", "most", "fruitless", "rmap_reads"),
    [
        (AnonVmaDesign(), 5, 2, 1, 3),  # page 1 of the parent is looked for in the child
        (CowContextDesign(), 5, 2, 1, 3),
        (VmaSetDesign(), 4, 2, 0, 0),  # VMA locks only
    ],
)
def test_walks_of_a_small_world(design: Hooks, visits: int, most: int, fruitless: int, rmap_reads: int) -> None:
    cost = measure_walks(world(design))
    assert (cost.walks, cost.visits, cost.most, cost.fruitless) == (3, visits, most, fruitless)
    assert cost.p99 == 2
    assert cost.locks["anon_vma_read"] == rmap_reads
    assert cost.locks["page_table"] == 0


def test_lookups_only_where_the_design_tells() -> None:
    assert measure_walks(world(CowContextDesign())).lookups == 5
    assert measure_walks(world(AnonVmaDesign())).lookups is None


def test_no_folios() -> None:
    cost = measure_walks(make_kernel())
    assert (cost.walks, cost.visits, cost.p99, cost.most) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("lengths", "percent", "expected"),
    [
        ({1: 99, 7: 1}, 99, 1),
        ({1: 98, 7: 2}, 99, 7),
        ({3: 1}, 99, 3),
        ({0: 5, 2: 5}, 50, 0),
        ({0: 5, 2: 5}, 51, 2),
    ],
)
def test_percentile_is_the_nearest_rank(lengths: dict[int, int], percent: int, expected: int) -> None:
    assert _percentile(Counter(lengths), percent) == expected


@pytest.fixture(scope="module")
def trace() -> Trace:
    return open_trace(bundled_path("redis"))


def test_fork_and_first_fault_of_mainline_and_lazy(trace: Trace) -> None:
    """The series' first fault allocates nothing; its fork upgrades. Walks of mainline and of exact sets differ only by
    the fruitless ones."""
    costs = {name: measure_cost(trace, name, V6_18, ROW) for name in ("anon_vma", "anon_vma_lazy", "vma_set")}
    base, lazy, exact = costs.values()
    assert base.walk.walks == lazy.walk.walks == exact.walk.walks > 100
    assert base.fork.count == lazy.fork.count == trace.columns["op"][: ROW + 1].count("fork") > 0
    assert base.first_fault.allocated["anon_vma_chain"] == base.first_fault.count > 0
    assert lazy.first_fault.allocated["anon_vma"] < base.first_fault.allocated["anon_vma"]
    assert exact.walk.fruitless == 0
    assert base.walk.visits - base.walk.fruitless == exact.walk.visits
    assert base.fork.locks["mmap_write"] == base.fork.count
    assert 0 < base.fork.rmap_objects <= base.fork.locks["anon_vma_read"] + base.fork.locks["anon_vma_write"]
    lines = cost_lines(costs)
    assert max(map(len, lines)) <= 75
    assert f"mean over {base.walk.walks} folios" in lines[0]
    assert cost_json(costs)["vma_set"]["walk"]["fruitless"] == 0


def test_measuring_changes_no_figure_of_the_replay(trace: Trace) -> None:
    """The same objects are allocated with and without the meters."""
    cost = measure_cost(trace, "cow_context", V6_18, ROW)
    assert cost.vma_bytes == -16
    again = measure_cost(trace, "cow_context", V6_18, ROW)
    assert cost == again
    assert make_design("cow_context").anon_vma_prepare.__name__ == "anon_vma_prepare"
