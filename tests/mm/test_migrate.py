# SPDX-License-Identifier: GPL-2.0-only
"""migrate_folio: migration entries in, all of them out."""

import pytest

from rmaplab.mm import flags as fl
from rmaplab.mm.exit import exit_mmap
from rmaplab.mm.fork import dup_mm
from rmaplab.mm.kernel import Kernel
from rmaplab.mm.migrate import migrate_folio, remove_migration_ptes
from rmaplab.mm.pagetable import ENTRY_SHIFT
from rmaplab.mm.protect import mprotect
from rmaplab.mm.rmap import try_to_migrate
from rmaplab.mm.zap import zap_range
from tests.support.builders import folio_at, link, move
from tests.support.walks import contents_kernel, fill, finish, kind, load, made, store, swap_out


@pytest.fixture
def kernel() -> Kernel:
    return contents_kernel()


def test_all_mappings_move(kernel: Kernel) -> None:
    """Mapping and index are copied (folio_migrate_mapping), so the walk for the new folio finds the entries."""
    mm = made(kernel)
    child = dup_mm(mm)
    grandchild = dup_mm(child)
    src = folio_at(mm, 0x10)
    dst = migrate_folio(kernel, src)
    assert dst is not None
    assert folio_at(mm, 0x10) is folio_at(child, 0x10) is folio_at(grandchild, 0x10) is dst
    assert (dst.mapcount, dst.index, dst.mapping, dst.refs) == (3, 0x10, mm.vmas[0].anon_vma, 0)
    assert kernel.mem.pages[src.pfn] is None
    assert load(grandchild, 0x10) == 0x10
    finish(kernel, mm, child, grandchild)


def test_exclusive_page_stays_exclusive_and_writable(kernel: Kernel) -> None:
    """make_writable_migration_entry, make_readable_exclusive_migration_entry"""
    mm = made(kernel)
    assert migrate_folio(kernel, folio_at(mm, 0x10))
    assert (kind(mm, 0x10), folio_at(mm, 0x10).exclusive) == ("present w", 1)
    mprotect(mm, 0x10000, 0x4000, fl.PROT_READ)
    assert migrate_folio(kernel, folio_at(mm, 0x10))
    assert (kind(mm, 0x10), folio_at(mm, 0x10).exclusive) == ("present", 1)
    finish(kernel, mm)


def test_shared_page_stays_write_protected(kernel: Kernel) -> None:
    """make_readable_migration_entry"""
    mm = made(kernel)
    child = dup_mm(mm)
    assert migrate_folio(kernel, folio_at(mm, 0x10))
    assert kind(mm, 0x10) == kind(child, 0x10) == "present"
    store(child, 0x10, 5)
    assert load(mm, 0x10) == 0x10
    finish(kernel, mm, child)


def test_failure_restores_every_entry(kernel: Kernel) -> None:
    """folio_migrate_mapping returns -EAGAIN for a pinned folio; remove_migration_ptes(src, src)."""
    mm = made(kernel)
    child = dup_mm(mm)
    store(mm, 0x11, 9)
    shared, own = folio_at(mm, 0x10), folio_at(mm, 0x11)
    live = kernel.mem.live
    for folio in (shared, own):
        folio.refs += 1
        assert migrate_folio(kernel, folio) is None
        folio.refs -= 1
    assert folio_at(mm, 0x10) is folio_at(child, 0x10) is shared
    assert (shared.mapcount, own.mapcount, kind(mm, 0x11), kernel.mem.live) == (2, 1, "present w", live)
    finish(kernel, mm, child)


def test_moved_pages_are_found_at_their_new_address(kernel: Kernel) -> None:
    mm = made(kernel)
    move(mm, 0x10, 0x14, 0x40)
    assert migrate_folio(kernel, folio_at(mm, 0x40))
    assert load(mm, 0x40) == 0x10
    finish(kernel, mm)


def test_anon_vma_is_pinned_meanwhile(kernel: Kernel) -> None:
    """folio_get_anon_vma: the last VMA may go while migration entries stand; put_anon_vma frees what is left."""
    mm = made(kernel)
    folio = folio_at(mm, 0x10)
    pinned = kernel.hooks.folio_get_anon_vma(folio)
    folio.refs += 1
    assert try_to_migrate(kernel, folio, pinned)
    exit_mmap(mm)
    assert kernel.anon_vma.live == 1
    remove_migration_ptes(kernel, folio, folio, pinned)
    assert folio.mapcount == 0
    kernel.hooks.put_anon_vma(pinned)
    assert kernel.anon_vma.live == 0


def test_fork_copies_migration_entries_as_shared(kernel: Kernel) -> None:
    """copy_nonpresent_pte: make_readable_migration_entry in both; the walk then finds the child's too."""
    mm = made(kernel)
    folio = folio_at(mm, 0x10)
    folio.refs += 1
    pinned = kernel.hooks.folio_get_anon_vma(folio)
    assert try_to_migrate(kernel, folio, pinned)
    assert kind(mm, 0x10) == "migration x"
    child = dup_mm(mm)
    assert kind(mm, 0x10) == kind(child, 0x10) == "migration"
    remove_migration_ptes(kernel, folio, folio, pinned)
    kernel.hooks.put_anon_vma(pinned)
    assert (folio.mapcount, folio.exclusive, kind(child, 0x10)) == (2, 0, "present")
    folio.refs -= 1
    finish(kernel, mm, child)


def test_mremap_moves_migration_entries(kernel: Kernel) -> None:
    mm = made(kernel)
    folio = folio_at(mm, 0x10)
    folio.refs += 1
    pinned = kernel.hooks.folio_get_anon_vma(folio)
    assert try_to_migrate(kernel, folio, pinned)
    move(mm, 0x10, 0x14, 0x40)
    remove_migration_ptes(kernel, folio, folio, pinned)
    kernel.hooks.put_anon_vma(pinned)
    folio.refs -= 1
    assert load(mm, 0x40) == 0x10
    finish(kernel, mm)


def test_page_in_the_swap_cache_keeps_its_slot(kernel: Kernel) -> None:
    """__folio_migrate_mapping replaces the entry of the swap cache, also of a folio that nothing maps."""
    mm = made(kernel)
    child = dup_mm(mm)
    swap_out(mm, 0x10)
    load(mm, 0x10)
    src = folio_at(mm, 0x10)
    dst = migrate_folio(kernel, src)
    assert dst is not None
    assert (kernel.swap.cache, dst.refs, kernel.mem.pages[src.pfn]) == ({1: dst}, 1, None)
    assert load(child, 0x10) == 0x10
    assert folio_at(child, 0x10) is dst
    (unmapped,) = swap_out(mm, 0x11, writeback=True)
    moved = migrate_folio(kernel, unmapped)
    assert load(child, 0x11) == 0x11
    assert folio_at(child, 0x11) is moved
    finish(kernel, mm, child)


def test_large_folio_moves_page_by_page(kernel: Kernel) -> None:
    """remove_migration_pte: the page of the new folio is the one at the same index, also where only some are mapped."""
    kernel = contents_kernel(thp="always")
    mm = kernel.mm_alloc()
    link(mm, 512, 1024)
    fill(mm, 512, 1024)
    zap_range(mm, 600 << 12, 1000 << 12)
    dst = migrate_folio(kernel, folio_at(mm, 512))
    assert dst is not None
    assert (dst.nr_pages, dst.mapcount) == (512, 112)
    table = mm.pgd[1]
    assert isinstance(table, dict)
    assert all((entry >> ENTRY_SHIFT) - dst.pfn == vpn - 512 for vpn, entry in table.items())
    assert [load(mm, page) for page in (512, 599, 1000, 1023)] == [512, 599, 1000, 1023]
    finish(kernel, mm)
