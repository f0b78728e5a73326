# SPDX-License-Identifier: GPL-2.0-only
import pytest

from rmaplab.mm import flags as fl
from rmaplab.mm.kernel import Kernel
from rmaplab.mm.madvise import madvise
from rmaplab.mm.mm import Mm
from rmaplab.mm.vma import File
from tests.support.builders import RO, RW, SHARED, layout, link, live, make_kernel, write


@pytest.fixture
def kernel() -> Kernel:
    return make_kernel()


@pytest.fixture
def mm(kernel: Kernel) -> Mm:
    return kernel.mm_alloc()


def mapped(mm: Mm) -> list[int]:
    return sorted(vpn for vpn, _ in mm.anon_entries())


@pytest.mark.parametrize(
    ("advice", "before", "after"),
    [
        (fl.MADV_RANDOM, fl.VM_SEQ_READ, fl.VM_RAND_READ),
        (fl.MADV_SEQUENTIAL, fl.VM_RAND_READ, fl.VM_SEQ_READ),
        (fl.MADV_NORMAL, fl.VM_RAND_READ, 0),
        (fl.MADV_DONTFORK, 0, fl.VM_DONTCOPY),
        (fl.MADV_DOFORK, fl.VM_DONTCOPY, 0),
        (fl.MADV_WIPEONFORK, 0, fl.VM_WIPEONFORK),
        (fl.MADV_KEEPONFORK, fl.VM_WIPEONFORK, 0),
        (fl.MADV_DONTDUMP, 0, fl.VM_DONTDUMP),
        (fl.MADV_DODUMP, fl.VM_DONTDUMP, 0),
        (fl.MADV_HUGEPAGE, fl.VM_NOHUGEPAGE, fl.VM_HUGEPAGE),
        (fl.MADV_NOHUGEPAGE, fl.VM_HUGEPAGE, fl.VM_NOHUGEPAGE),
        (fl.MADV_MERGEABLE, 0, fl.VM_MERGEABLE),
        (fl.MADV_UNMERGEABLE, fl.VM_MERGEABLE, 0),
    ],
)
def test_advice_splits_by_its_flag(mm: Mm, advice: int, before: int, after: int) -> None:
    """madvise_vma_behavior: the right bit, on the right part."""
    link(mm, 0, 6, RW | before)
    madvise(mm, 2 << 12, 2 << 12, advice)
    assert layout(mm) == [(0, 2, 0), (2, 4, 2), (4, 6, 4)]
    assert [vma.vm_flags for vma in mm.vmas] == [RW | before, RW | after, RW | before]
    madvise(mm, 0, 6 << 12, advice)
    assert [vma.vm_flags for vma in mm.vmas] == [RW | after]


@pytest.mark.parametrize(
    ("advice", "unfit"),
    [
        (fl.MADV_WIPEONFORK, SHARED),
        (fl.MADV_DOFORK, RW | fl.VM_SPECIAL | fl.VM_DONTCOPY),
        (fl.MADV_DODUMP, RW | fl.VM_SPECIAL | fl.VM_DONTDUMP),
    ],
)
def test_unfit_vma_ends_the_call(mm: Mm, advice: int, unfit: int) -> None:
    """What came before is done, what comes after is not (madvise_walk_vmas)."""
    fit = RW | fl.VM_DONTCOPY | fl.VM_DONTDUMP
    link(mm, 0, 2, fit)
    link(mm, 2, 4, unfit)
    link(mm, 4, 6, fit)
    madvise(mm, 0, 6 << 12, advice)
    changed, untouched, rest = (vma.vm_flags for vma in mm.vmas)
    assert changed != fit
    assert untouched == unfit
    assert rest == fit


def test_ksm_passes_over_what_it_cannot_merge(mm: Mm) -> None:
    """ksm_madvise returns 0 for an unfit VMA."""
    link(mm, 0, 2, SHARED)
    link(mm, 2, 4)
    madvise(mm, 0, 4 << 12, fl.MADV_MERGEABLE)
    assert [vma.vm_flags for vma in mm.vmas] == [SHARED, RW | fl.VM_MERGEABLE]


def test_hole_is_passed_over(mm: Mm) -> None:
    """The call fails with ENOMEM in the end, but does its work (madvise_walk_vmas)."""
    link(mm, 0, 2)
    link(mm, 4, 6)
    madvise(mm, 1 << 12, 5 << 12, fl.MADV_DONTFORK)
    assert [(r[0], r[1]) for r in layout(mm)] == [(0, 1), (1, 2), (4, 6)]
    assert [bool(vma.vm_flags & fl.VM_DONTCOPY) for vma in mm.vmas] == [False, True, True]


def test_wipeonfork_is_for_memory_without_a_file(mm: Mm) -> None:
    vma = link(mm, 0, 2, file=File("lib"))
    madvise(mm, 0, 2 << 12, fl.MADV_WIPEONFORK)
    assert vma.vm_flags == RW


def test_dontneed_frees_pages_and_keeps_the_anon_vma(mm: Mm, kernel: Kernel) -> None:
    link(mm, 0, 4)
    write(mm, 0, 1, 2)
    madvise(mm, 1 << 12, 1 << 12, fl.MADV_DONTNEED)
    assert mapped(mm) == [0, 2]
    assert kernel.mem.live == 2
    assert live(kernel) == (1, 1, 1)


@pytest.mark.parametrize(
    ("advice", "left"), [(fl.MADV_DONTNEED, [2, 4]), (fl.MADV_DONTNEED_LOCKED, []), (fl.MADV_FREE, [0, 2, 4])]
)
def test_locked_memory_ends_dontneed(mm: Mm, advice: int, left: list[int]) -> None:
    """madvise_dontneed_free_valid_vma. MADV_FREE only marks pages; when reclaim takes them nobody sees."""
    link(mm, 0, 2, fault=True)
    link(mm, 2, 4, RW | fl.VM_LOCKED, fault=True)
    link(mm, 4, 6, fault=True)
    madvise(mm, 0, 6 << 12, advice)
    assert mapped(mm) == left


def test_populate_write_stops_where_it_cannot(mm: Mm) -> None:
    link(mm, 0, 2)
    link(mm, 2, 4, RO)
    link(mm, 4, 6)
    madvise(mm, 0, 6 << 12, fl.MADV_POPULATE_WRITE)
    assert mapped(mm) == [0, 1]


def test_populate_read_prepares_huge_ranges_only() -> None:
    kernel = make_kernel()
    mm = kernel.mm_alloc()
    small, huge = link(mm, 0, 512), link(mm, 512, 1024, RW | fl.VM_HUGEPAGE)
    madvise(mm, 0, 1024 << 12, fl.MADV_POPULATE_READ)
    assert (small.anon_vma is None, huge.anon_vma is None) == (True, False)
    assert not mm.pgd


def test_guard_install_prepares_and_clears(mm: Mm, kernel: Kernel) -> None:
    """The markers must be copied at fork, so the VMA must not look unfaulted (madvise_guard_install)."""
    vma = link(mm, 0, 4)
    madvise(mm, 0, 2 << 12, fl.MADV_GUARD_INSTALL)
    assert vma.anon_vma is not None
    write(mm, 2)
    madvise(mm, 2 << 12, 1 << 12, fl.MADV_GUARD_INSTALL)
    assert kernel.mem.live == 0


def test_guard_install_ends_at_locked_memory(mm: Mm) -> None:
    link(mm, 0, 2, RW | fl.VM_LOCKED)
    link(mm, 2, 4)
    madvise(mm, 0, 4 << 12, fl.MADV_GUARD_INSTALL)
    assert [vma.anon_vma for vma in mm.vmas] == [None, None]
