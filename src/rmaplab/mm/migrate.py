# SPDX-License-Identifier: GPL-2.0-only
"""Migration of a folio to another one (mm/migrate.c), as compaction and NUMA balancing do it."""

from typing import TYPE_CHECKING, Any

from rmaplab.mm.bug import KernelBug
from rmaplab.mm.flags import VM_WRITE
from rmaplab.mm.folio import Folio, folio_put
from rmaplab.mm.hooks import WalkContended
from rmaplab.mm.pagetable import ENTRY_SHIFT, EXCLUSIVE, MIGRATION, PRESENT, WRITE
from rmaplab.mm.rmap import page_vma_mapped_walk, pte_table, rmap_walk, try_to_migrate
from rmaplab.mm.stable_node import folio_test_ksm

if TYPE_CHECKING:
    from rmaplab.mm.kernel import Kernel
    from rmaplab.mm.vma import Vma

__all__ = ["migrate_folio", "remove_migration_ptes"]


def remove_migration_ptes(kernel: "Kernel", src: Folio, dst: Folio, pinned: Any = None, locked: bool = False) -> None:
    """Replace every migration entry for `src` by one that maps `dst`, which may be `src` (remove_migration_pte).

    The walk is one for `dst`: its mapping and index are in place. A page that was exclusive is so again, and writable
    if its VMA is; the kernel keeps both apart in the migration entry, to the same effect at the next write.

    pinned, locked: as for :meth:`Hooks.rmap_walk_anon`. The walk must not be contended: nothing else knows the entries.
    """

    def rmap_one(vma: "Vma", address: int) -> bool:
        for vpn, entry, _ in page_vma_mapped_walk(src, vma, address, MIGRATION):
            page = vma.vm_pgoff + vpn - (vma.vm_start >> 12) - src.index if dst.nr_pages > 1 else 0
            new = (dst.pfn + page) << ENTRY_SHIFT | PRESENT
            if entry & EXCLUSIVE:
                dst.exclusive |= 1 << page
                if vma.vm_flags & VM_WRITE:
                    new |= WRITE
            dst.add_rmap()
            pte_table(vma.vm_mm, vpn)[vpn] = new
        return True

    rmap_walk(kernel, dst, rmap_one, pinned, locked)


def migrate_folio(kernel: "Kernel", src: Folio) -> Folio | None:
    """Move the contents and all mappings of `src` to a new folio, which is returned; None if that failed, in which case
    everything is as before (migrate_pages_batch for one folio: migrate_folio_unmap, migrate_folio_move)."""
    mem = kernel.mem
    if not src.try_get():  # isolate_migratepages_block
        return None
    dst = mem.alloc() if src.nr_pages == 1 else mem.alloc_large(src.nr_pages)
    dst.get()
    moved = False
    pinned = None
    with kernel.locks.folio(src):
        ksm = folio_test_ksm(src)
        try:
            if not ksm:
                pinned = kernel.hooks.folio_get_anon_vma(src)
            guard = kernel.locks.folio_trylock(dst)
        except WalkContended:
            guard = None
        if guard is not None:
            with guard:
                moved = _migrate_locked(kernel, src, dst, pinned)
        if pinned is not None:
            kernel.hooks.put_anon_vma(pinned)
    folio_put(mem, dst)
    folio_put(mem, src)
    return dst if moved else None


def _migrate_locked(kernel: "Kernel", src: Folio, dst: Folio, pinned: Any) -> bool:
    """migrate_folio_unmap and migrate_folio_move with both folios locked. In between nothing maps `src`, and its
    migration entries make whoever meets one wait for its lock."""
    was_mapped = src.mapping is not None and src.mapcount > 0
    if was_mapped and pinned is None and not folio_test_ksm(src):
        raise KernelBug("migrate_folio_unmap: a mapped anonymous folio has no anon_vma")
    unmapped = not was_mapped or try_to_migrate(kernel, src, pinned)
    moved = unmapped and not src.mapcount and _move_to_new_folio(kernel, src, dst)
    if was_mapped:
        remove_migration_ptes(kernel, src, dst if moved else src, pinned)
    return moved


def _move_to_new_folio(kernel: "Kernel", src: Folio, dst: Folio) -> bool:
    """move_to_new_folio, migrate_folio, folio_migrate_mapping: fails while somebody else holds a reference"""
    cached = src in kernel.swap.slot_of
    if src.ref_count() != 1 + cached:
        return False
    for k in range(src.nr_pages):
        kernel.mem.copy(dst.pfn + k, src.pfn + k)  # folio_mc_copy
    dst.index = src.index
    dst.mapping = src.mapping
    if cached and not kernel.swap.replace(src, dst):
        dst.mapping = None
        return False
    if folio_test_ksm(dst):
        dst.mapping.folio = dst  # folio_migrate_ksm
    return True  # src.mapping stays: it is that of an anonymous folio until that is freed
