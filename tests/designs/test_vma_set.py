# SPDX-License-Identifier: GPL-2.0-only
"""Each folio keeps the VMAs that map it: exactly these after everything that changes VMAs or entries."""

from itertools import permutations

import pytest

from rmaplab.designs.vma_set import VmaSetDesign
from rmaplab.designs.vma_set_check import check_vma_sets
from rmaplab.mm import flags as fl
from rmaplab.mm.exec import ElfMapper, bprm_mm_init
from rmaplab.mm.exit import exit_mmap
from rmaplab.mm.flags import PMD_SIZE
from rmaplab.mm.fork import dup_mm
from rmaplab.mm.huge_memory import split_folio
from rmaplab.mm.huge_pmd import split_huge_pmd
from rmaplab.mm.kernel import Kernel
from rmaplab.mm.madvise import madvise
from rmaplab.mm.migrate import migrate_folio
from rmaplab.mm.mm import Mm
from rmaplab.mm.mmap import do_munmap
from rmaplab.mm.protect import mprotect
from rmaplab.mm.vma import File
from tests.support.builders import RW, folio_at, layout, link, live, make_kernel, mmap, move, write
from tests.support.walks import contents_kernel, load, store, swap_out

DONTUNMAP = fl.MREMAP_MAYMOVE | fl.MREMAP_DONTUNMAP | fl.MREMAP_FIXED
HUGE = 512  # pages
THP = RW | fl.VM_HUGEPAGE


@pytest.fixture
def kernel() -> Kernel:
    return make_kernel(design=VmaSetDesign())


@pytest.fixture
def mm(kernel: Kernel) -> Mm:
    return kernel.mm_alloc()


def members(mm: Mm, page: int) -> list[tuple[int, int, int]]:
    """(mm, first page, end page) of the VMAs in the set of the folio that `mm` maps at `page`."""
    found = folio_at(mm, page).mapping.vmas
    return sorted((vma.vm_mm.ident, vma.vm_start >> 12, vma.vm_end >> 12) for vma in found)


def walk(mm: Mm, page: int) -> list[tuple[int, int]]:
    folio = folio_at(mm, page)
    return sorted((vma.vm_mm.ident, address >> 12) for vma, address in mm.kernel.hooks.rmap_walk_anon(folio))


def links(kernel: Kernel) -> int:
    assert kernel.anon_vma.live == kernel.anon_vma_chain.live == 0
    return kernel.slabs[3].live


def check(kernel: Kernel, *mms: Mm) -> None:
    check_vma_sets(kernel.hooks, mms)  # type: ignore[arg-type]


# --- entries that come and go


def test_one_element_for_each_page(mm: Mm, kernel: Kernel) -> None:
    link(mm, 0, 4, fault=True)
    write(mm, 1, 2)
    assert links(kernel) == 3
    assert members(mm, 1) == [(1, 0, 4)]
    do_munmap(mm, 0, 0x4000)
    assert links(kernel) == 0


def test_a_marked_vma_holds_nothing(mm: Mm, kernel: Kernel) -> None:
    vma = link(mm, 0, 4, fault=True)
    madvise(mm, 0, 0x4000, fl.MADV_DONTNEED)
    assert vma.anon_vma is not None
    assert links(kernel) == 0


def test_no_visit_is_fruitless_after_copy_on_write(mm: Mm, kernel: Kernel) -> None:
    link(mm, 0, 2, fault=True)
    write(mm, 1)
    second = dup_mm(mm)
    third = dup_mm(second)
    assert walk(mm, 0) == [(1, 0), (2, 0), (3, 0)]
    assert links(kernel) == 6
    write(second, 0)
    assert walk(mm, 0) == [(1, 0), (3, 0)]
    assert walk(second, 0) == [(2, 0)]
    assert links(kernel) == 6
    write(mm, 0)
    assert walk(third, 0) == [(3, 0)]
    check(kernel, mm, second, third)


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_exit_in_all_orders(kernel: Kernel, mm: Mm, order: tuple[int, ...]) -> None:
    link(mm, 0, 2, fault=True)
    second = dup_mm(mm)
    mms = [mm, second, dup_mm(second)]
    alive = set(mms)
    for gone in order:
        exit_mmap(mms[gone])
        alive.discard(mms[gone])
        check(kernel, *alive)
        for left in alive:
            assert walk(left, 0) == [(other.ident, 0) for other in mms if other in alive]
    assert not any(live(kernel))
    assert kernel.mem.live == 0


def test_wipe_on_fork_is_not_inherited(mm: Mm, kernel: Kernel) -> None:
    link(mm, 0, 1, RW | fl.VM_WIPEONFORK, fault=True)
    child = dup_mm(mm)
    assert walk(mm, 0) == [(1, 0)]
    write(child, 0)
    check(kernel, mm, child)


def test_swap_takes_members_out_and_back() -> None:
    kernel = contents_kernel(VmaSetDesign())
    mm = kernel.mm_alloc()
    link(mm, 0x10, 0x11)
    store(mm, 0x10, 5)
    child = dup_mm(mm)
    (folio,) = swap_out(mm, 0x10, writeback=True)
    assert (folio.mapping.vmas, links(kernel)) == ({}, 0)
    assert load(child, 0x10) == 5
    assert walk(child, 0x10) == [(2, 0x10)]
    assert load(mm, 0x10) == 5
    assert walk(mm, 0x10) == [(1, 0x10), (2, 0x10)]
    check(kernel, mm, child)


def test_migration_hands_the_set_over() -> None:
    kernel = contents_kernel(VmaSetDesign())
    mm = kernel.mm_alloc()
    link(mm, 0x10, 0x11)
    store(mm, 0x10, 5)
    child = dup_mm(mm)
    before = folio_at(mm, 0x10)
    after = migrate_folio(kernel, before)
    assert after is not None and after is folio_at(child, 0x10)
    assert walk(mm, 0x10) == [(1, 0x10), (2, 0x10)]
    assert links(kernel) == 2
    check(kernel, mm, child)


# --- VMAs that change


@pytest.mark.parametrize(("first", "last"), [(0, 2), (2, 4), (1, 3)])
def test_split_moves_members(mm: Mm, kernel: Kernel, first: int, last: int) -> None:
    link(mm, 0, 4, fault=True)
    write(mm, 1, 2, 3)
    mprotect(mm, first << 12, (last - first) << 12, fl.PROT_READ)
    for page in range(4):
        (vma,) = [v for v in mm.vmas if v.vm_start <= page << 12 < v.vm_end]
        assert members(mm, page) == [(1, vma.vm_start >> 12, vma.vm_end >> 12)]
    assert links(kernel) == 4
    check(kernel, mm)
    mprotect(mm, first << 12, (last - first) << 12, fl.PROT_READ | fl.PROT_WRITE)
    assert layout(mm) == [(0, 4, 0)]
    assert [members(mm, page) for page in range(4)] == [[(1, 0, 4)]] * 4
    check(kernel, mm)


def test_merge_of_a_part_hands_over_that_part(mm: Mm, kernel: Kernel) -> None:
    """mprotect of the first two pages of the second VMA: the first grows over them, the second keeps the rest."""
    link(mm, 0, 2, fault=True)
    write(mm, 1)
    other = link(mm, 2, 6, RW & ~fl.VM_WRITE)
    other.vm_flags = RW
    write(mm, 2, 3, 4, 5)
    other.vm_flags = RW & ~fl.VM_WRITE
    mprotect(mm, 0x2000, 0x2000, fl.PROT_READ | fl.PROT_WRITE)
    assert layout(mm) == [(0, 4, 0), (4, 6, 4)]
    assert [members(mm, page) for page in (1, 2, 3)] == [[(1, 0, 4)]] * 3
    assert [members(mm, page) for page in (4, 5)] == [[(1, 4, 6)]] * 2
    check(kernel, mm)


def test_a_gap_that_is_filled_merges_both_sides(mm: Mm, kernel: Kernel) -> None:
    mmap(mm, 0, 2)
    mmap(mm, 4, 6)
    write(mm, 1, 4)
    mmap(mm, 2, 4)
    assert layout(mm) == [(0, 6, 0)]
    assert members(mm, 1) == members(mm, 4) == [(1, 0, 6)]
    check(kernel, mm)


@pytest.mark.parametrize("flags", [fl.MREMAP_MAYMOVE | fl.MREMAP_FIXED, DONTUNMAP])
def test_move_hands_over(mm: Mm, kernel: Kernel, flags: int) -> None:
    link(mm, 8, 12, fault=True)
    write(mm, 9, 11)
    child = dup_mm(mm)
    move(child, 9, 12, 41, flags)
    assert walk(mm, 9) == [(1, 9), (2, 41)]
    assert walk(mm, 11) == [(1, 11), (2, 43)]
    assert walk(mm, 8) == [(1, 8), (2, 8)]
    check(kernel, mm, child)
    exit_mmap(child)
    exit_mmap(mm)
    assert not any(live(kernel))


def test_move_onto_a_neighbour_that_merges(mm: Mm, kernel: Kernel) -> None:
    """The middle comes back to where its index fits: three VMAs become one."""
    link(mm, 0, 6, fault=True)
    write(mm, 1, 2, 3, 4, 5)
    move(mm, 2, 4, 40)
    assert members(mm, 40) == [(1, 40, 42)]
    check(kernel, mm)
    move(mm, 40, 42, 2)
    assert layout(mm) == [(0, 6, 0)]
    assert [members(mm, page) for page in range(6)] == [[(1, 0, 6)]] * 6
    check(kernel, mm)


def test_private_file_mappings_need_nothing_special(mm: Mm, kernel: Kernel) -> None:
    for first, name in ((20, "a"), (40, "b")):
        mmap(mm, first, first + 6, RW, file=File(name))
        write(mm, first + 3)
    assert folio_at(mm, 23).index == folio_at(mm, 43).index == 3
    assert walk(mm, 23) == [(1, 23)]
    check(kernel, mm)


def test_the_stack_of_an_execve_keeps_its_members(kernel: Kernel) -> None:
    mm = bprm_mm_init(kernel)
    top = mm.vmas[0].vm_end >> 12
    ElfMapper(mm).stack_moved((top - 533) << 12, (top - 500) << 12, mm.vmas[0].vm_pgoff - 32)
    assert walk(mm, top - 501) == [(1, top - 501)]
    check(kernel, mm)


# --- huge pages


@pytest.fixture
def huge(mm: Mm) -> Mm:
    """One huge page at 2 MiB, in a VMA of three times its size."""
    link(mm, 0, 3 * HUGE, THP)
    write(mm, HUGE)
    assert folio_at(mm, HUGE).nr_pages == HUGE
    return mm


def test_one_element_for_a_huge_page(huge: Mm, kernel: Kernel) -> None:
    assert links(kernel) == 1
    split_huge_pmd(huge, 1)
    assert links(kernel) == 1
    do_munmap(huge, (HUGE + 1) << 12, (2 * HUGE) << 12)
    assert links(kernel) == 1
    check(kernel, huge)
    do_munmap(huge, HUGE << 12, (HUGE + 1) << 12)
    assert links(kernel) == 0


@pytest.mark.parametrize("page", [HUGE, HUGE + 1, HUGE + 300, 2 * HUGE])
def test_a_vma_boundary_in_a_huge_page_makes_two_members(huge: Mm, kernel: Kernel, page: int) -> None:
    mprotect(huge, page << 12, (3 * HUGE - page) << 12, fl.PROT_READ)
    sides = [(1, 0, page), (1, page, 3 * HUGE)]
    expected = {HUGE: sides[1:], 2 * HUGE: sides[:1]}.get(page, sides)
    assert members(huge, HUGE) == expected
    check(kernel, huge)
    mprotect(huge, page << 12, (3 * HUGE - page) << 12, fl.PROT_READ | fl.PROT_WRITE)
    assert members(huge, HUGE) == [(1, 0, 3 * HUGE)]
    check(kernel, huge)


def test_part_of_a_huge_page_moves(huge: Mm, kernel: Kernel) -> None:
    move(huge, HUGE + 8, HUGE + 12, 10 * HUGE)
    assert members(huge, HUGE) == [(1, 0, HUGE + 8), (1, HUGE + 12, 3 * HUGE), (1, 10 * HUGE, 10 * HUGE + 4)]
    check(kernel, huge)


def test_a_huge_page_moves_as_a_whole(huge: Mm, kernel: Kernel) -> None:
    move(huge, HUGE, 2 * HUGE, 10 * HUGE)
    assert members(huge, 10 * HUGE) == [(1, 10 * HUGE, 11 * HUGE)]
    check(kernel, huge)


def test_folio_split_gives_each_page_a_set(huge: Mm, kernel: Kernel) -> None:
    folio = folio_at(huge, HUGE)
    mprotect(huge, (HUGE + 4) << 12, 0x1000, fl.PROT_READ)
    madvise(huge, (HUGE + 9) << 12, 0x1000, fl.MADV_DONTNEED)
    child = dup_mm(huge)
    assert split_folio(kernel, folio)
    assert links(kernel) == 2 * (HUGE - 1)
    assert members(huge, HUGE + 4) == [(1, HUGE + 4, HUGE + 5), (2, HUGE + 4, HUGE + 5)]
    check(kernel, huge, child)
    exit_mmap(huge)
    exit_mmap(child)
    assert not any(live(kernel))
    assert kernel.mem.live == 0


def test_exit_with_a_huge_page_mapped_by_pages(huge: Mm, kernel: Kernel) -> None:
    assert huge.pgd[1] and PMD_SIZE == HUGE << 12
    split_huge_pmd(huge, 1)
    move(huge, HUGE + 8, HUGE + 12, 10 * HUGE)
    exit_mmap(huge)
    assert not any(live(kernel))


# --- the check


def test_the_check_can_fail(mm: Mm, kernel: Kernel) -> None:
    vma = link(mm, 0, 1, fault=True)
    other = link(mm, 4, 5, fault=True)
    check(kernel, mm)
    folio = folio_at(mm, 0)
    folio.mapping.vmas[other] = folio.mapping.vmas.pop(vma)
    with pytest.raises(AssertionError):
        check(kernel, mm)
