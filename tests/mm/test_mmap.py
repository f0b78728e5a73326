# SPDX-License-Identifier: GPL-2.0-only
"""brk, stack growth, and the order of events in mmap. Merges and cuts: test_vma_merge.py, test_vma_split.py."""

import pytest

from rmaplab.mm import flags as fl
from rmaplab.mm.kernel import Kernel
from rmaplab.mm.mm import Mm
from rmaplab.mm.mmap import brk, expand_downwards
from tests.support.builders import RO, RW, folio_at, layout, link, live, make_kernel, mmap, write


@pytest.fixture
def kernel() -> Kernel:
    return make_kernel()


@pytest.fixture
def mm(kernel: Kernel) -> Mm:
    return kernel.mm_alloc()


def test_first_brk_only_tells_where_the_break_is(mm: Mm) -> None:
    brk(mm, 0x4000)
    assert not mm.vmas


def test_brk_moves_by_whole_pages(mm: Mm) -> None:
    brk(mm, 0x4010)  # the heap begins at the next page
    brk(mm, 0x4020)
    assert not mm.vmas
    brk(mm, 0x5001)
    assert layout(mm) == [(5, 6, 5)]


def test_brk_shrinks_and_frees(mm: Mm, kernel: Kernel) -> None:
    brk(mm, 0x4000)
    brk(mm, 0x8000)
    write(mm, 4, 7)
    brk(mm, 0x6000)
    assert layout(mm) == [(4, 6, 4)]
    assert kernel.mem.live == 1
    brk(mm, 0x4000)
    assert live(kernel) == (0, 0, 0)


def test_heap_is_locked_and_populated_after_mlockall(mm: Mm) -> None:
    """mm->def_flags goes into the VMA, and brk populates outside the lock."""
    brk(mm, 0x4000)
    mm.def_flags = fl.VM_LOCKED
    brk(mm, 0x6000)
    assert mm.vmas[0].vm_flags & fl.VM_LOCKED
    assert sorted(vpn for vpn, _ in mm.anon_entries()) == [4, 5]


def test_heap_grows_although_forked(mm: Mm, kernel: Kernel) -> None:
    """A heap VMA with the anon_vmas of its parents is not singular, so growth makes a second VMA."""
    from rmaplab.mm.fork import dup_mm

    brk(mm, 0x4000)
    brk(mm, 0x6000)
    write(mm, 4)
    child = dup_mm(mm)
    brk(child, 0x8000)
    assert layout(child) == [(4, 6, 4), (6, 8, 6)]


def test_stack_grows_with_its_anon_vma_and_offset(mm: Mm, kernel: Kernel) -> None:
    """expand_downwards prepares first, even for a read, and lowers vm_pgoff, so the pages keep their indices."""
    vma = link(mm, 10, 12, RW | fl.VM_GROWSDOWN)
    log = kernel.log_slabs()
    expand_downwards(mm, vma, 7 << 12)
    assert [(alloc, cache) for alloc, cache, _ in log] == [(1, 2), (1, 1)]
    assert layout(mm) == [(7, 12, 7)]
    write(mm, 11)
    assert folio_at(mm, 11).index == 11
    log.clear()
    expand_downwards(mm, vma, 5 << 12)
    assert not log
    mm.check()


def test_map_fixed_order_of_events(mm: Mm, kernel: Kernel) -> None:
    """Split, unlink what is replaced, allocate the new VMA, and only then free the old one (__mmap_region)."""
    vma = link(mm, 0, 4, fault=True)
    log = kernel.log_slabs()
    mmap(mm, 2, 4, RO)
    assert [(alloc, cache) for alloc, cache, _ in log] == [
        (1, 0),  # the lower part
        (1, 2),  # and its AVC
        (0, 2),  # the replaced part's AVC
        (1, 0),  # the new VMA
        (0, 0),
    ]
    assert log[-1][2] is vma
