# SPDX-License-Identifier: GPL-2.0-only
"""memory_failure: who is killed, and what stays."""

import pytest

from rmaplab.mm import flags as fl
from rmaplab.mm.fork import dup_mm
from rmaplab.mm.kernel import Kernel
from rmaplab.mm.memory_failure import memory_failure
from rmaplab.mm.vmscan import shrink_folio
from tests.support.builders import RW, folio_at, link
from tests.support.walks import contents_kernel, fill, finish, kind, load, made, store, swap_out


@pytest.fixture
def kernel() -> Kernel:
    return contents_kernel()


def test_all_who_map_the_page_are_killed_and_nobody_else(kernel: Kernel) -> None:
    """collect_procs_anon visits every VMA of the tree, add_to_kill only where page_mapped_in_vma."""
    mm = made(kernel)
    child, other = dup_mm(mm), dup_mm(mm)
    store(other, 0x10, 5)
    pfn = folio_at(mm, 0x10).pfn
    assert memory_failure(kernel, pfn) == {mm, child}
    assert (kind(mm, 0x10), kind(child, 0x10), kind(other, 0x10)) == ("hwpoison", "hwpoison", "present w")
    assert (load(mm, 0x10), load(other, 0x10), load(mm, 0x11)) == (None, 5, 0x11)
    assert memory_failure(kernel, pfn) is None  # again
    finish(kernel, mm, child, other)


def test_mlocked_pages_too(kernel: Kernel) -> None:
    """TTU_IGNORE_MLOCK"""
    mm = made(kernel, flags=RW | fl.VM_LOCKED)
    assert memory_failure(kernel, folio_at(mm, 0x10).pfn) == {mm}
    assert kind(mm, 0x10) == "hwpoison"
    finish(kernel, mm)


def test_frame_is_never_used_again(kernel: Kernel) -> None:
    mm = made(kernel)
    pfn = folio_at(mm, 0x10).pfn
    memory_failure(kernel, pfn)
    assert pfn not in {kernel.mem.alloc().pfn for _ in range(8)}


def test_fork_copies_the_entry(kernel: Kernel) -> None:
    """copy_nonpresent_pte: the child meets it as well."""
    mm = made(kernel)
    memory_failure(kernel, folio_at(mm, 0x10).pfn)
    child = dup_mm(mm)
    assert (kind(child, 0x10), load(child, 0x10)) == ("hwpoison", None)
    finish(kernel, mm, child)


def test_unmapped_page_of_the_swap_cache_kills_nobody_yet(kernel: Kernel) -> None:
    """Those are always late kills (hwpoison_user_mappings): the swap-in meets the page (do_swap_page)."""
    mm = made(kernel)
    (folio,) = swap_out(mm, 0x10, writeback=True)
    assert memory_failure(kernel, folio.pfn) == set()
    assert load(mm, 0x10) is None
    finish(kernel, mm)


def test_only_the_broken_page_of_a_large_folio_is_lost() -> None:
    """try_to_split_thp_page"""
    kernel = contents_kernel(thp="always")
    mm = kernel.mm_alloc()
    link(mm, 512, 1024)
    fill(mm, 512, 1024)
    pfn = folio_at(mm, 512).pfn + 88
    assert memory_failure(kernel, pfn) == {mm}
    assert [load(mm, page) for page in (599, 600, 601)] == [599, None, 601]
    finish(kernel, mm)


def test_large_folio_that_cannot_be_split(kernel: Kernel) -> None:
    """A pinned one: MF_FAILED, nothing has changed."""
    kernel = contents_kernel(thp="always")
    mm = kernel.mm_alloc()
    link(mm, 512, 1024)
    fill(mm, 512, 513)
    folio = folio_at(mm, 512)
    folio.refs += 1
    assert memory_failure(kernel, folio.pfn) is None
    folio.refs -= 1
    assert load(mm, 512) == 512
    assert not kernel.mem.poisoned
    finish(kernel, mm)


def test_ksm_page(kernel: Kernel) -> None:
    """collect_procs_ksm looks at every VMA of every item's anon_vma."""
    one, other = (made(kernel, flags=RW | fl.VM_MERGEABLE) for _ in range(2))
    store(one, 0x10, 7)
    store(other, 0x13, 7)
    assert kernel.ksm.merge(one, 0x10000, other, 0x13000)
    child = dup_mm(one)
    assert memory_failure(kernel, folio_at(one, 0x10).pfn) == {one, other, child}
    assert kind(other, 0x13) == kind(child, 0x10) == "hwpoison"
    finish(kernel, one, other, child)


def test_free_page(kernel: Kernel) -> None:
    mm = made(kernel)
    folio = folio_at(mm, 0x10)
    assert shrink_folio(kernel, folio)
    assert memory_failure(kernel, folio.pfn) is None
    assert memory_failure(kernel, 1 << 20) is None
    finish(kernel, mm)


def test_slot_that_no_entry_names_is_freed(kernel: Kernel) -> None:
    """A mapped page that is in the swap cache as well: nobody could come back for it."""
    mm = made(kernel, flags=RW | fl.VM_LOCKED)
    folio = folio_at(mm, 0x10)
    assert not shrink_folio(kernel, folio)
    assert kernel.swap.counts
    assert memory_failure(kernel, folio.pfn) == {mm}
    assert not kernel.swap.counts
    finish(kernel, mm)
