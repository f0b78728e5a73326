# SPDX-License-Identifier: GPL-2.0-only
"""mremap: shrinking, growing, moving, and what becomes of the source. Merges at the target: test_vma_merge.py."""

import pytest

from rmaplab.mm import flags as fl
from rmaplab.mm.exit import exit_mmap
from rmaplab.mm.kernel import Kernel
from rmaplab.mm.mm import Mm
from rmaplab.mm.mremap import mremap
from rmaplab.mm.vma import File
from tests.support.builders import (
    RO,
    RW,
    SHARED,
    folio_at,
    layout,
    link,
    live,
    make_kernel,
    move,
    resize,
    write,
)

DONTUNMAP = fl.MREMAP_MAYMOVE | fl.MREMAP_FIXED | fl.MREMAP_DONTUNMAP


@pytest.fixture(params=["6.12", "6.18"])
def kernel(request: pytest.FixtureRequest) -> Kernel:
    return make_kernel(request.param, thp="always")


@pytest.fixture
def mm(kernel: Kernel) -> Mm:
    return kernel.mm_alloc()


def mapped(mm: Mm) -> list[int]:
    return sorted(vpn for vpn, _ in mm.anon_entries())


# --- in place


def test_shrink_unmaps_the_tail(mm: Mm, kernel: Kernel) -> None:
    link(mm, 0, 4)
    write(mm, 1, 3)
    resize(mm, 0, 4, 2)
    assert layout(mm) == [(0, 2, 0)]
    assert mapped(mm) == [1]
    assert kernel.mem.live == 1


def test_shrink_in_the_middle_leaves_the_rest(mm: Mm) -> None:
    """old_len need not reach the end of the VMA."""
    link(mm, 0, 8)
    resize(mm, 2, 6, 1)
    assert layout(mm) == [(0, 3, 0), (6, 8, 6)]


def test_grow_in_place_needs_no_new_vma(mm: Mm, kernel: Kernel) -> None:
    """vma_merge_extend: the growth merges with the VMA it belongs to, faulted and forked or not."""
    link(mm, 0, 2, fault=True)
    resize(mm, 0, 2, 5)
    assert layout(mm) == [(0, 5, 0)]
    assert live(kernel) == (1, 1, 1)


@pytest.mark.parametrize(("locked", "pages"), [(0, []), (fl.VM_LOCKED, [2, 3]), (fl.VM_LOCKED_MASK, [])])
def test_growth_of_locked_memory_is_populated(mm: Mm, locked: int, pages: list[int]) -> None:
    """Only the new part, and not with VM_LOCKONFAULT (mm_populate at the end of mremap)."""
    link(mm, 0, 2, RW | locked)
    resize(mm, 0, 2, 4)
    assert mapped(mm) == pages


# --- moving


def test_pages_move_with_their_index(mm: Mm, kernel: Kernel) -> None:
    """The copy keeps the linear offset, so the folios need no change; the source is unmapped without them."""
    link(mm, 0, 4)
    write(mm, 1, 3)
    first, second = folio_at(mm, 1), folio_at(mm, 3)
    move(mm, 0, 4, 20)
    assert layout(mm) == [(20, 24, 0)]
    assert (folio_at(mm, 21), folio_at(mm, 23)) == (first, second)
    assert (first.index, first.mapcount) == (1, 1)
    assert live(kernel) == (1, 1, 1)
    assert kernel.mem.live == 2


def test_move_of_a_part_splits_the_source(mm: Mm) -> None:
    link(mm, 0, 6)
    write(mm, 0, 3)
    move(mm, 2, 4, 20)
    assert layout(mm) == [(0, 2, 0), (4, 6, 4), (20, 22, 2)]
    assert mapped(mm) == [0, 21]


def test_move_replaces_what_was_at_the_target(mm: Mm, kernel: Kernel) -> None:
    link(mm, 0, 2, fault=True)
    link(mm, 10, 14, RO | fl.VM_ACCOUNT)
    move(mm, 0, 2, 11)
    assert layout(mm) == [(10, 11, 10), (11, 13, 0), (13, 14, 13)]
    assert kernel.mem.live == 1


def test_move_and_shrink(mm: Mm) -> None:
    """MREMAP_FIXED with a shorter length unmaps the tail first (mremap_to)."""
    link(mm, 0, 4)
    write(mm, 0, 3)
    mremap(mm, 0, 4 << 12, 2 << 12, fl.MREMAP_MAYMOVE | fl.MREMAP_FIXED, 10 << 12, 10 << 12)
    assert layout(mm) == [(10, 12, 0)]
    assert mapped(mm) == [10]


def test_move_and_grow(mm: Mm) -> None:
    """No room above: the kernel chose another place, with the new length."""
    link(mm, 0, 2, RW | fl.VM_LOCKED)
    link(mm, 2, 3, RO)
    resize(mm, 0, 2, 4, to=10)
    assert layout(mm) == [(2, 3, 2), (10, 14, 10)]
    assert mapped(mm) == [12, 13]


def test_move_within_one_vma(mm: Mm) -> None:
    """The target lies in the VMA that the source lies in: the VMA must be looked up again after the unmap."""
    link(mm, 0, 8)
    write(mm, 0, 6)
    move(mm, 0, 2, 5)
    assert layout(mm) == [(2, 5, 2), (5, 7, 0), (7, 8, 7)]
    assert mapped(mm) == [5]


def test_unfaulted_source_may_merge_with_its_own_copy(mm: Mm) -> None:
    """copy_vma's "self-merge": the VMA slides down with its pgoff, and no second one comes of it."""
    link(mm, 4, 8)
    move(mm, 6, 8, 2)
    assert layout(mm) == [(2, 6, 2)]


def test_private_dev_zero_takes_the_new_offset(mm: Mm) -> None:
    """It has a file but no vm_ops, so vma_is_anonymous."""
    link(mm, 0, 2, file=File("zero", zero=True))
    move(mm, 0, 2, 10)
    assert layout(mm) == [(10, 12, 10)]


@pytest.mark.parametrize("flags", [RW, SHARED])
def test_file_keeps_its_offset(mm: Mm, flags: int) -> None:
    link(mm, 3, 5, flags, file=File("lib"))
    move(mm, 3, 5, 10)
    assert layout(mm) == [(10, 12, 3)]


@pytest.mark.parametrize(
    ("first", "last", "to", "whole"),
    [(512, 1024, 2048, True), (512, 1024, 2049, False), (512, 600, 2048, False)],
)
def test_huge_page_moves_whole_if_aligned(mm: Mm, kernel: Kernel, first: int, last: int, to: int, whole: bool) -> None:
    """move_huge_pmd, or a split first."""
    link(mm, 512, 1024, fault=True)
    folio = folio_at(mm, 512)
    move(mm, first, last, to)
    assert folio_at(mm, to) is folio
    assert folio.mapcount == (1 if whole else 512)
    assert isinstance(mm.pgd[to >> 9], int) is whole
    mm.check()
    exit_mmap(mm)
    assert kernel.mem.live == 0


# --- several VMAs


def test_several_vmas_move_with_their_gaps(mm: Mm, kernel: Kernel) -> None:
    """6.17 moves them one by one (remap_move). An older kernel refuses, and such a call is not replayed."""
    if not kernel.profile.mremap_moves_many:
        pytest.skip("refused before 6.17")
    link(mm, 0, 4, fault=True)
    link(mm, 4, 6, RO)
    link(mm, 8, 12)
    move(mm, 2, 10, 22)
    assert layout(mm) == [(0, 2, 0), (10, 12, 10), (22, 24, 2), (24, 26, 24), (28, 30, 28)]


def test_several_vmas_must_not_begin_with_a_hole(kernel: Kernel, mm: Mm) -> None:
    if not kernel.profile.mremap_moves_many:
        pytest.skip("refused before 6.17")
    link(mm, 2, 4)
    length = 4 << 12
    mremap(mm, 0, length, length, fl.MREMAP_MAYMOVE | fl.MREMAP_FIXED, 20 << 12, -fl.EFAULT)
    assert layout(mm) == [(2, 4, 2)]


def test_failed_move_changes_nothing(mm: Mm) -> None:
    link(mm, 0, 2)
    mremap(mm, 0, 2 << 12, 4 << 12, 0, 0, -fl.ENOMEM)
    assert layout(mm) == [(0, 2, 0)]


# --- MREMAP_DONTUNMAP


def test_dontunmap_leaves_an_unfaulted_source(mm: Mm, kernel: Kernel) -> None:
    """The source stays as if never touched: no pages, anon_vma or AVC, and the offset of fresh memory."""
    vma = link(mm, 0, 4)
    write(mm, 1)
    folio = folio_at(mm, 1)
    move(mm, 0, 4, 10, DONTUNMAP)
    assert vma.anon_vma is None
    assert not vma.anon_vma_chain
    assert layout(mm) == [(0, 4, 0), (10, 14, 0)]
    assert folio_at(mm, 11) is folio
    assert live(kernel) == (2, 1, 1)


def test_dontunmap_of_a_moved_vma(mm: Mm, kernel: Kernel) -> None:
    """6.12.y gives the source, unfaulted now, the offset of its address; 6.18 leaves it: later merges tell (the bundled
    recording `random` is exact only without it)."""
    link(mm, 0, 4, fault=True)
    move(mm, 0, 4, 10)
    move(mm, 10, 14, 20, DONTUNMAP)
    assert layout(mm) == [(10, 14, 10 if kernel.profile.dontunmap_resets_pgoff else 0), (20, 24, 0)]


def test_dontunmap_of_a_part_keeps_the_source_linked(mm: Mm, kernel: Kernel) -> None:
    """Other pages of the source are still there."""
    vma = link(mm, 0, 4)
    write(mm, 0, 3)
    move(mm, 2, 4, 10, DONTUNMAP)
    assert layout(mm) == [(0, 4, 0), (10, 12, 2)]
    assert vma.anon_vma is not None
    assert live(kernel) == (2, 1, 2)


def test_dontunmap_of_a_locked_part(mm: Mm, kernel: Kernel) -> None:
    """6.12 splits the source so that only the part loses VM_LOCKED; 6.18 clears it on the whole source. The target
    stays locked."""
    locked = RW | fl.VM_LOCKED
    link(mm, 0, 6, locked)
    move(mm, 2, 4, 10, DONTUNMAP)
    flags = [(first, last, mm.vma_lookup(first << 12).vm_flags) for first, last, _ in layout(mm)]  # type: ignore[union-attr]
    if kernel.profile.dontunmap_splits_locked:
        assert flags == [(0, 2, locked), (2, 4, RW), (4, 6, locked), (10, 12, locked)]
    else:
        assert flags == [(0, 6, RW), (10, 12, locked)]


def test_dontunmap_next_to_its_unfaulted_source(mm: Mm, kernel: Kernel) -> None:
    """6.12.y keeps the target apart from the source; 6.18 lets the source grow over it."""
    link(mm, 0, 2)
    move(mm, 0, 2, 2, DONTUNMAP)
    if kernel.profile.dontunmap_keeps_source:
        assert layout(mm) == [(0, 2, 0), (2, 4, 2)]
    else:
        assert layout(mm) == [(0, 4, 0)]
