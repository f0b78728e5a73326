# SPDX-License-Identifier: GPL-2.0-only
"""Splitting VMAs (__split_vma, vma_modify) and the splits of munmap and MAP_FIXED.

vma_shrink (the kernel's simple_shrink) is only used by execve's move of the stack: tests/mm/test_exec.py.
"""

import pytest

from rmaplab.mm import flags as fl
from rmaplab.mm.kernel import Kernel
from rmaplab.mm.mm import Mm
from rmaplab.mm.mmap import do_munmap
from rmaplab.mm.slab import AllocationFailure
from rmaplab.mm.vma import split_vma, vma_modify
from tests.support.builders import RO, RW, layout, link, live, make_kernel, mmap, write


@pytest.fixture
def kernel() -> Kernel:
    return make_kernel()


@pytest.fixture
def mm(kernel: Kernel) -> Mm:
    return kernel.mm_alloc()


def test_modify_of_the_middle_keeps_the_vma_there(mm: Mm) -> None:
    """The VMA passed in must be the one that covers the range afterwards (simple_modify)."""
    vma = link(mm, 0, 3)
    changed = vma_modify(mm, vma, 1 << 12, 2 << 12, RO)
    assert changed is vma
    assert layout(mm) == [(0, 1, 0), (1, 2, 1), (2, 3, 2)]
    assert [v.vm_flags for v in mm.vmas] == [RW, RO, RW]


@pytest.mark.parametrize(("new_below", "new_index"), [(True, 0), (False, 1)])
def test_new_vma_lies_on_the_side_asked_for(mm: Mm, new_below: bool, new_index: int) -> None:
    """`new_below` decides which object keeps its identity, and so which one a later unmap frees (__split_vma)."""
    vma = link(mm, 2, 6)
    new = split_vma(mm, vma, 5 << 12, new_below)
    assert layout(mm) == [(2, 5, 2), (5, 6, 5)]
    assert mm.vmas[new_index] is new
    assert mm.vmas[1 - new_index] is vma


def test_split_of_faulted_vma_links_the_new_one(mm: Mm, kernel: Kernel) -> None:
    """A half that no walk of the other half's pages would reach (anon_vma_clone in __split_vma)."""
    vma = link(mm, 0, 4, fault=True)
    new = split_vma(mm, vma, 2 << 12, new_below=False)
    assert new.anon_vma is vma.anon_vma
    assert [avc.vma for avc in vma.anon_vma.avcs] == [vma, new]
    assert vma.anon_vma.num_active_vmas == 2
    assert live(kernel) == (2, 1, 2)


def test_split_of_unfaulted_vma_allocates_a_vma_only(mm: Mm, kernel: Kernel) -> None:
    """An AVC for a VMA that has none (anon_vma_clone of an empty chain)."""
    split_vma(mm, link(mm, 0, 4), 1 << 12, new_below=True)
    assert live(kernel) == (2, 0, 0)


def test_split_order_of_allocations(mm: Mm, kernel: Kernel) -> None:
    """The VMA comes before its AVC (vm_area_dup, then anon_vma_clone)."""
    vma = link(mm, 0, 4, fault=True)
    log = kernel.log_slabs()
    split_vma(mm, vma, 2 << 12, new_below=True)
    assert [(alloc, cache) for alloc, cache, _ in log] == [(1, 0), (1, 2)]


@pytest.mark.parametrize(
    ("first", "last", "expected", "freed"),
    [
        (0, 8, [], 1),
        (0, 3, [(3, 8, 3)], 1),
        (5, 8, [(0, 5, 0)], 1),
        (3, 5, [(0, 3, 0), (5, 8, 5)], 1),
        (8, 9, [(0, 8, 0)], 0),
    ],
)
def test_munmap_cuts(mm: Mm, first: int, last: int, expected: list[tuple[int, int, int]], freed: int) -> None:
    """Wrong pieces left by munmap at either edge, in the middle, of the whole and beside it
    (vms_gather_munmap_vmas)."""
    link(mm, 0, 8)
    log = mm.kernel.log_slabs()
    do_munmap(mm, first << 12, last << 12)
    assert layout(mm) == expected
    assert [(alloc, cache) for alloc, cache, _ in log].count((0, 0)) == freed


def test_munmap_frees_the_original_and_keeps_the_new_lower_part(mm: Mm) -> None:
    """Cutting the tail splits with the new VMA below, so that the original object is the one that goes."""
    vma = link(mm, 0, 8)
    log = mm.kernel.log_slabs()
    do_munmap(mm, 5 << 12, 8 << 12)
    assert mm.vmas[0] is not vma
    assert log[-1] == (0, 0, vma)


def test_munmap_over_several_vmas(mm: Mm) -> None:
    """Parts of the outer VMAs must stay, those between and the hole must not matter."""
    link(mm, 0, 4)
    link(mm, 4, 6, RO)
    link(mm, 8, 12)
    do_munmap(mm, 2 << 12, 10 << 12)
    assert layout(mm) == [(0, 2, 0), (10, 12, 10)]


def test_map_fixed_replaces_and_merges(mm: Mm, kernel: Kernel) -> None:
    """A replaced middle merges back with both sides: split, split, unlink, merge (__mmap_region)."""
    mmap(mm, 0, 8)
    write(mm, 0, 3, 7)
    mmap(mm, 2, 5)
    assert layout(mm) == [(0, 8, 0)]
    assert live(kernel) == (1, 1, 1)
    assert kernel.mem.live == 2


@pytest.mark.parametrize("at", [1, 200, 511])
def test_split_inside_a_huge_page_splits_its_entry(at: int) -> None:
    """A PMD entry that straddles two VMAs: neither's walk would see it whole (vma_adjust_trans_huge)."""
    kernel = make_kernel(thp="always")
    mm = kernel.mm_alloc()
    vma = link(mm, 512, 1536)
    write(mm, 513)
    split_vma(mm, vma, (512 + at) << 12, new_below=False)
    assert isinstance(mm.pgd[1], dict)
    mm.check()


def test_split_at_the_edge_of_a_huge_page_leaves_it_whole() -> None:
    """Splitting a PMD entry for a boundary that does not cut it (split_huge_pmd_if_needed)."""
    kernel = make_kernel(thp="always")
    mm = kernel.mm_alloc()
    vma = link(mm, 512, 1536)
    write(mm, 512)
    split_vma(mm, vma, 1024 << 12, new_below=False)
    assert isinstance(mm.pgd[1], int)


@pytest.mark.parametrize("left", [True, False])
def test_boundary_shift_splits_a_huge_page(left: bool) -> None:
    """The same when a merge moves the boundary of two VMAs into a huge page (commit_merge)."""
    kernel = make_kernel(thp="always")
    mm = kernel.mm_alloc()
    changed = RW | fl.VM_DONTDUMP
    link(mm, 0, 512, changed)
    vma = link(mm, 512, 1024)
    link(mm, 1024, 1025, changed)
    write(mm, 512)
    part = (512, 700) if left else (700, 1024)
    vma_modify(mm, vma, part[0] << 12, part[1] << 12, changed)
    assert len(mm.vmas) == 3
    assert isinstance(mm.pgd[1], dict)
    mm.check()


def test_failed_allocation_reaches_the_caller(mm: Mm, kernel: Kernel) -> None:
    """A split that goes on without its VMA."""
    vma = link(mm, 0, 4)
    kernel.vm_area_struct.fail = True
    with pytest.raises(AllocationFailure, match="vm_area_struct"):
        split_vma(mm, vma, 1 << 12, new_below=True)
    assert layout(mm) == [(0, 4, 0)]
    assert live(kernel) == (1, 0, 0)
