# SPDX-License-Identifier: GPL-2.0-only
"""shrink_folio_list for one folio."""

import pytest

from rmaplab.mm import flags as fl
from rmaplab.mm.fork import dup_mm
from rmaplab.mm.kernel import Kernel
from rmaplab.mm.vmscan import shrink_folio
from tests.support.builders import RW, folio_at
from tests.support.walks import contents_kernel, finish, kind, load, made, store, swap_out


@pytest.fixture
def kernel() -> Kernel:
    return contents_kernel()


def test_reclaimed_page_is_free_and_comes_back(kernel: Kernel) -> None:
    mm = made(kernel)
    child = dup_mm(mm)
    store(child, 0x11, 7)
    swap_out(mm, 0x10, 0x11, 0x12, 0x13)
    swap_out(child, 0x11)
    assert kernel.mem.live == 0
    assert [load(child, page) for page in range(0x10, 0x14)] == [0x10, 7, 0x12, 0x13]
    assert [load(mm, page) for page in range(0x10, 0x14)] == [0x10, 0x11, 0x12, 0x13]
    finish(kernel, mm, child)


def test_page_under_writeback_stays_in_the_swap_cache(kernel: Kernel) -> None:
    """PAGE_SUCCESS with PG_writeback set: unmapped, but not removed."""
    mm = made(kernel)
    (folio,) = swap_out(mm, 0x10, writeback=True)
    assert (folio.mapcount, folio.refs, kernel.mem.pages[folio.pfn]) == (0, 1, folio)
    assert folio.mapping is mm.vmas[0].anon_vma  # the mapping outlives the last unmap
    assert load(mm, 0x10) == 0x10
    assert folio_at(mm, 0x10) is folio
    finish(kernel, mm)


def test_second_reclaim_writes_what_was_written_since(kernel: Kernel) -> None:
    """The slot is used again; its old contents must not come back."""
    mm = made(kernel)
    (folio,) = swap_out(mm, 0x10, writeback=True)
    store(mm, 0x10, 9)
    swap_out(mm, 0x10)
    assert kernel.mem.pages[folio.pfn] is None
    assert load(mm, 0x10) == 9
    finish(kernel, mm)


def test_locked_page_is_kept(kernel: Kernel) -> None:
    """activate_locked: it stays in the swap cache, mapped."""
    mm = made(kernel, flags=RW | fl.VM_LOCKED)
    folio = folio_at(mm, 0x10)
    assert not shrink_folio(kernel, folio)
    assert (folio.mapcount, folio in kernel.swap.slot_of, kind(mm, 0x10)) == (1, True, "present w")
    finish(kernel, mm)


def test_pinned_page_is_kept(kernel: Kernel) -> None:
    """folio_maybe_dma_pinned"""
    mm = made(kernel)
    folio = folio_at(mm, 0x10)
    folio.refs += 1
    assert not shrink_folio(kernel, folio)
    assert kind(mm, 0x10) == "present w"
    folio.refs -= 1
    finish(kernel, mm)


def test_folio_that_somebody_holds_locked_is_skipped(kernel: Kernel) -> None:
    """folio_trylock"""
    mm = made(kernel)

    class Busy(type(kernel.locks)):  # type: ignore[misc]
        def folio_trylock(self, folio: object) -> None:
            return None

    kernel.locks = Busy()
    assert not shrink_folio(kernel, folio_at(mm, 0x10))
    assert not kernel.swap.counts
    finish(kernel, mm)
