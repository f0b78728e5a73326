# SPDX-License-Identifier: GPL-2.0-only
"""Faults: what mm/memory.c and mm/huge_memory.c do to page tables, folios and the VMA."""

import pytest

from rmaplab.mm import flags as fl
from rmaplab.mm.exit import exit_mmap
from rmaplab.mm.fault import handle_mm_fault, populate_range
from rmaplab.mm.fork import dup_mm
from rmaplab.mm.kernel import Kernel
from rmaplab.mm.mm import Mm
from rmaplab.mm.pagetable import WRITE
from rmaplab.mm.protect import mprotect
from rmaplab.mm.vma import File
from tests.support.builders import RO, RW, SHARED, folio_at, link, live, make_kernel, write


@pytest.fixture
def kernel() -> Kernel:
    return make_kernel()


@pytest.fixture
def mm(kernel: Kernel) -> Mm:
    return kernel.mm_alloc()


def entry(mm: Mm, page: int) -> int:
    table = mm.pgd[page >> 9]
    return table if isinstance(table, int) else table[page]


# --- first touch


def test_write_maps_a_new_exclusive_page(mm: Mm, kernel: Kernel) -> None:
    """do_anonymous_page: mapped once, writable, PageAnonExclusive, indexed linearly."""
    link(mm, 2, 8)
    write(mm, 5)
    folio = folio_at(mm, 5)
    assert entry(mm, 5) & WRITE
    assert (folio.mapcount, folio.exclusive, folio.index, folio.nr_pages) == (1, 1, 5, 1)
    assert live(kernel) == (1, 1, 1)
    write(mm, 5)
    assert kernel.mem.live == 1


def test_read_of_small_pages_prepares_nothing(mm: Mm, kernel: Kernel) -> None:
    """The zero page needs no anon_vma (do_anonymous_page)."""
    link(mm, 0, 4)
    assert handle_mm_fault(mm, 0, False)
    assert live(kernel) == (1, 0, 0)
    assert not mm.pgd


@pytest.mark.parametrize("flags", [RO, SHARED])
def test_write_that_makes_no_anonymous_page(mm: Mm, kernel: Kernel, flags: int) -> None:
    """A write to a read-only VMA is an error, one to a shared VMA makes a page of the file."""
    link(mm, 0, 4, flags)
    write(mm, 0)
    assert live(kernel) == (1, 0, 0)
    assert not mm.pgd


def test_fault_outside_any_vma_is_refused(mm: Mm) -> None:
    link(mm, 0, 4)
    assert not handle_mm_fault(mm, 4 << 12, True)


def test_private_file_page_is_indexed_by_file_offset(mm: Mm, kernel: Kernel) -> None:
    """do_cow_fault: the new page is anonymous, its index that of the page of the file."""
    vma = link(mm, 8, 12, file=File("lib"))
    vma.vm_pgoff = 3
    write(mm, 10)
    assert folio_at(mm, 10).index == 5
    assert live(kernel) == (1, 1, 1)


# --- copy-on-write


def test_write_after_fork_copies_and_then_reuses(kernel: Kernel, mm: Mm) -> None:
    """wp_page_copy for the first writer, wp_can_reuse_anon_folio for the last one left, whose page becomes its own."""
    link(mm, 0, 1, fault=True)
    old = folio_at(mm, 0)
    child = dup_mm(mm)
    assert old.mapcount == 2
    write(child, 0)
    assert folio_at(child, 0) is not old
    assert (old.mapcount, kernel.mem.live) == (1, 2)
    assert not entry(mm, 0) & WRITE
    write(mm, 0)
    assert folio_at(mm, 0) is old
    assert entry(mm, 0) & WRITE
    assert old.exclusive == 1


def test_child_that_is_left_alone_takes_the_page_over(kernel: Kernel, mm: Mm) -> None:
    """folio_move_anon_rmap: the folio names the child's own anon_vma from then on."""
    link(mm, 0, 1, fault=True)
    child = dup_mm(mm)
    old = folio_at(mm, 0)
    parents = old.mapping
    exit_mmap(mm)
    write(child, 0)
    assert folio_at(child, 0) is old
    assert old.mapping is child.vmas[0].anon_vma is not parents


def test_referenced_page_is_copied(kernel: Kernel, mm: Mm) -> None:
    """A page that somebody else holds must not be written in place (wp_can_reuse_anon_folio counts references)."""
    link(mm, 0, 1, fault=True)
    child = dup_mm(mm)
    exit_mmap(child)
    old = folio_at(mm, 0)
    old.refs = 1
    write(mm, 0)
    assert folio_at(mm, 0) is not old
    assert (old.mapcount, kernel.mem.live) == (0, 2)


def test_exclusive_page_is_written_in_place_after_mprotect(kernel: Kernel, mm: Mm) -> None:
    """do_wp_page asks PageAnonExclusive first: no copy, and the mapping stays as it is."""
    link(mm, 0, 1, fault=True)
    old, mapping = folio_at(mm, 0), folio_at(mm, 0).mapping
    mprotect(mm, 0, 1 << 12, fl.PROT_READ)
    assert not entry(mm, 0) & WRITE
    mprotect(mm, 0, 1 << 12, fl.PROT_READ | fl.PROT_WRITE)
    write(mm, 0)
    assert folio_at(mm, 0) is old
    assert old.mapping is mapping
    assert entry(mm, 0) & WRITE


# --- huge pages


@pytest.mark.parametrize(
    ("thp", "flags", "huge"),
    [
        ("always", RW, True),
        ("madvise", RW, False),
        ("madvise", RW | fl.VM_HUGEPAGE, True),
        ("never", RW | fl.VM_HUGEPAGE, False),
        ("always", RW | fl.VM_NOHUGEPAGE, False),
    ],
)
def test_which_faults_are_huge(thp: str, flags: int, huge: bool) -> None:
    """thp_vma_allowable_order for the three settings of transparent_hugepage/enabled."""
    mm = make_kernel(thp=thp).mm_alloc()
    link(mm, 512, 1536, flags)
    write(mm, 700)
    folio = folio_at(mm, 700)
    assert (folio.nr_pages == 512) is huge
    assert folio.index == (512 if huge else 700)
    assert folio.exclusive == (1 << folio.nr_pages) - 1
    assert folio.mapcount == 1


@pytest.mark.parametrize("page", [511, 1024])
def test_no_huge_page_beyond_the_vma(page: int) -> None:
    """thp_vma_suitable_order: the aligned 2 MiB around the address must lie inside the VMA."""
    mm = make_kernel(thp="always").mm_alloc()
    link(mm, 500, 1100)
    write(mm, page)
    assert folio_at(mm, page).nr_pages == 1


def test_huge_page_does_not_displace_small_ones() -> None:
    """A page table that exists stays: the fault is served by a small page."""
    kernel = make_kernel(thp="always")
    mm = kernel.mm_alloc()
    vma = link(mm, 512, 1024, RW | fl.VM_NOHUGEPAGE)
    write(mm, 512)
    vma.vm_flags = RW
    write(mm, 600)
    assert folio_at(mm, 600).nr_pages == 1
    assert kernel.mem.live == 2


@pytest.mark.parametrize(("first", "prepared"), [(512, True), (513, False)])
def test_read_of_huge_range_prepares(first: int, prepared: bool) -> None:
    """do_huge_pmd_anonymous_page prepares before it takes the huge zero folio."""
    kernel = make_kernel(thp="always")
    mm = kernel.mm_alloc()
    vma = link(mm, first, 1024)
    assert handle_mm_fault(mm, 600 << 12, False)
    assert (vma.anon_vma is not None) is prepared
    assert kernel.mem.live == 0


def test_shared_huge_page_is_split_for_the_writer() -> None:
    """do_huge_pmd_wp_page falls back to one small page; the other process keeps its PMD entry."""
    kernel = make_kernel(thp="always")
    mm = kernel.mm_alloc()
    link(mm, 512, 1024, fault=True)
    huge = folio_at(mm, 512)
    child = dup_mm(mm)
    assert huge.mapcount == 2
    write(child, 600)
    assert folio_at(child, 600).nr_pages == 1
    assert isinstance(mm.pgd[1], int)
    # 511 pages in the child, one PMD entry in the parent
    assert (huge.mapcount, huge.exclusive) == (512, 0)
    assert kernel.mem.live == 513


@pytest.mark.parametrize("forked", [False, True])
def test_huge_page_of_one_owner_is_written_in_place(forked: bool) -> None:
    """do_huge_pmd_wp_page: an exclusive huge page, or one with no other reference, is written without a split; the
    latter moves to the anon_vma of its VMA."""
    kernel = make_kernel(thp="always")
    mm = kernel.mm_alloc()
    vma = link(mm, 512, 1024, fault=True)
    huge = folio_at(mm, 512)
    if forked:
        exit_mmap(dup_mm(mm))
        assert huge.exclusive == 0
    else:
        mprotect(mm, 512 << 12, 512 << 12, fl.PROT_READ)
        mprotect(mm, 512 << 12, 512 << 12, fl.PROT_READ | fl.PROT_WRITE)
    assert not entry(mm, 512) & WRITE
    write(mm, 600)
    assert isinstance(mm.pgd[1], int)
    assert entry(mm, 512) & WRITE
    assert huge.exclusive == (1 << 512) - 1
    assert huge.mapping is vma.anon_vma
    assert kernel.mem.live == 512


# --- populating


def test_populate_faults_writable_private_memory_in(mm: Mm, kernel: Kernel) -> None:
    """Holes, read-only, shared and inaccessible memory get no anonymous pages (populate_vma_page_range)."""
    link(mm, 0, 2)
    link(mm, 2, 4, RO)
    link(mm, 6, 8, SHARED)
    link(mm, 8, 10, RW & ~fl.VM_ACCESS_FLAGS)
    link(mm, 12, 14)
    populate_range(mm, 1 << 12, 13 << 12)
    assert sorted(vpn for vpn, _ in mm.anon_entries()) == [1, 12]


def test_populate_stops_at_the_first_hole_if_told_to(mm: Mm) -> None:
    link(mm, 0, 2)
    link(mm, 4, 6)
    populate_range(mm, 0, 6 << 12, stop=True)
    assert sorted(vpn for vpn, _ in mm.anon_entries()) == [0, 1]


def test_populate_for_writing_stops_at_what_must_not_be_written(mm: Mm) -> None:
    """MADV_POPULATE_WRITE fails at a read-only VMA and at a special one (check_vma_flags)."""
    for unfit in (RO, RW | fl.VM_SPECIAL):
        mm = make_kernel().mm_alloc()
        link(mm, 0, 2)
        link(mm, 2, 4, unfit)
        link(mm, 4, 6)
        populate_range(mm, 0, 6 << 12, write=True, stop=True)
        assert sorted(vpn for vpn, _ in mm.anon_entries()) == [0, 1]


def test_populate_of_a_readable_huge_range_prepares() -> None:
    """mlock of read-only MADV_HUGEPAGE memory takes read faults, and those prepare as any read fault there does."""
    kernel = make_kernel()
    mm = kernel.mm_alloc()
    vma = link(mm, 512, 1024, RO | fl.VM_HUGEPAGE)
    populate_range(mm, 512 << 12, 1024 << 12)
    assert vma.anon_vma is not None
    assert kernel.mem.live == 0
