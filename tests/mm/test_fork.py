# SPDX-License-Identifier: GPL-2.0-only
"""dup_mmap and copy_page_range."""

import pytest

from rmaplab.mm import flags as fl
from rmaplab.mm.fork import dup_mm
from rmaplab.mm.kernel import Kernel
from rmaplab.mm.mm import Mm
from rmaplab.mm.mmap import brk
from rmaplab.mm.pagetable import WRITE
from rmaplab.mm.vma import File
from tests.support.builders import RW, SHARED, folio_at, layout, link, live, make_kernel, write


@pytest.fixture
def kernel() -> Kernel:
    return make_kernel(thp="always")


@pytest.fixture
def mm(kernel: Kernel) -> Mm:
    return kernel.mm_alloc()


def test_child_maps_the_same_pages_write_protected(mm: Mm, kernel: Kernel) -> None:
    """A page left writable on either side would show one process' write to the other."""
    link(mm, 0, 4)
    write(mm, 1, 3)
    child = dup_mm(mm)
    assert layout(child) == layout(mm)
    for page in (1, 3):
        folio = folio_at(mm, page)
        assert folio_at(child, page) is folio
        assert (folio.mapcount, folio.exclusive) == (2, 0)
    assert not any(entry & WRITE for m in (mm, child) for _, entry in m.anon_entries())
    assert kernel.mem.live == 2


def test_huge_page_is_shared_by_its_entry(mm: Mm) -> None:
    """copy_huge_pmd: one more PMD mapping, none of the pages is exclusive any more."""
    link(mm, 512, 1024, fault=True)
    child = dup_mm(mm)
    assert isinstance(child.pgd[1], int)
    assert child.pgd[1] == mm.pgd[1]
    folio = folio_at(mm, 512)
    assert (folio.mapcount, folio.exclusive) == (2, 0)


def test_dontcopy_vma_is_left_out(mm: Mm) -> None:
    """MADV_DONTFORK: neither VMA nor pages."""
    link(mm, 0, 2, fault=True)
    link(mm, 2, 4, RW | fl.VM_DONTCOPY, fault=True)
    child = dup_mm(mm)
    assert layout(child) == [(0, 2, 0)]
    assert folio_at(mm, 2).mapcount == 1
    assert folio_at(mm, 2).exclusive == 1


def test_wipeonfork_vma_starts_unfaulted(mm: Mm, kernel: Kernel) -> None:
    """MADV_WIPEONFORK: the VMA without pages, anon_vma or AVC."""
    link(mm, 0, 2, RW | fl.VM_WIPEONFORK, fault=True)
    child = dup_mm(mm)
    assert child.vmas[0].anon_vma is None
    assert not child.vmas[0].anon_vma_chain
    assert not child.pgd
    assert live(kernel) == (2, 1, 1)
    assert folio_at(mm, 0).exclusive == 1


def test_locks_are_not_inherited(mm: Mm) -> None:
    """Neither VM_LOCKED nor mlockall(MCL_FUTURE)."""
    link(mm, 0, 2, RW | fl.VM_LOCKED | fl.VM_LOCKONFAULT)
    mm.def_flags = fl.VM_LOCKED
    child = dup_mm(mm)
    assert child.vmas[0].vm_flags == RW
    assert child.def_flags == 0
    assert mm.vmas[0].vm_flags & fl.VM_LOCKED


def test_shared_and_unfaulted_vmas_cost_the_child_a_vma_only(mm: Mm, kernel: Kernel) -> None:
    """No anon_vma of the child's own where the parent has none (anon_vma_fork)."""
    link(mm, 0, 2, SHARED, file=File("shm"))
    link(mm, 2, 4)
    dup_mm(mm)
    assert live(kernel) == (4, 0, 0)


def test_break_is_inherited(mm: Mm) -> None:
    brk(mm, 0x5000)
    brk(mm, 0x7000)
    child = dup_mm(mm)
    brk(child, 0x8000)
    assert layout(child) == [(5, 8, 5)]
    assert layout(mm) == [(5, 7, 5)]


def test_order_of_allocations(mm: Mm, kernel: Kernel) -> None:
    """anon_vma_fork clones first (one AVC for the parent's anon_vma), then makes the child's own and its AVC."""
    link(mm, 0, 2, fault=True)
    log = kernel.log_slabs()
    dup_mm(mm)
    assert [(alloc, cache) for alloc, cache, _ in log] == [(1, 0), (1, 2), (1, 1), (1, 2)]
