# SPDX-License-Identifier: GPL-2.0-only
from rmaplab.mm.locks import LOCK_KINDS, CountingLocks
from rmaplab.mm.mmap import brk
from rmaplab.mm.protect import mprotect
from tests.support.builders import link, make_kernel, write


def test_each_kind_counts_its_own_acquisitions() -> None:
    locks = CountingLocks()
    with locks.mmap_read(None), locks.anon_vma_read(None), locks.page_table(None, 0):
        locks.vma_start_write(None)
    with locks.mmap_write(None), locks.mmap_write(None):  # re-entrant: the guard is shared
        pass
    counts = locks.counts()
    assert set(counts) == set(LOCK_KINDS)
    assert {kind: n for kind, n in counts.items() if n} == {
        "mmap_read": 1,
        "anon_vma_read": 1,
        "page_table": 1,
        "vma_write": 1,
        "mmap_write": 2,
    }


def test_first_fault_leaves_the_vma_lock_for_the_mmap_lock() -> None:
    """__vmf_anon_prepare needs the mmap lock, and only for the VMA's first anonymous page."""
    kernel = make_kernel()
    mm = kernel.mm_alloc()
    link(mm, 0, 4)
    write(mm, 0)
    assert kernel.locks.n_mmap_read == 1
    write(mm, 1)
    assert kernel.locks.n_mmap_read == 1
    assert kernel.locks.n_vma_read == 2


def test_changes_of_vmas_take_the_mmap_lock_for_writing() -> None:
    kernel = make_kernel()
    mm = kernel.mm_alloc()
    brk(mm, 0x1000)  # only tells where the break is
    assert kernel.locks.n_mmap_write == 0
    brk(mm, 0x3000)
    mprotect(mm, 0x1000, 0x1000, 1)
    assert kernel.locks.n_mmap_write == 2
