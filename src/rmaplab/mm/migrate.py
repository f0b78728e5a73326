# SPDX-License-Identifier: GPL-2.0-only
"""Migration of a folio to another one (mm/migrate.c), as compaction and NUMA balancing do it."""

from typing import TYPE_CHECKING

from rmaplab.mm.bug import KernelBug
from rmaplab.mm.flags import VM_WRITE
from rmaplab.mm.folio import Folio, folio_put
from rmaplab.mm.pagetable import ENTRY_SHIFT, EXCLUSIVE, MIGRATION, PRESENT, WRITE
from rmaplab.mm.rmap import page_vma_mapped_walk, pte_table, rmap_walk, try_to_migrate
from rmaplab.mm.stable_node import folio_test_ksm

if TYPE_CHECKING:
    from rmaplab.mm.kernel import Kernel
    from rmaplab.mm.vma import Vma

__all__ = ["migrate_folio", "remove_migration_ptes"]


def remove_migration_ptes(kernel: "Kernel", src: Folio, dst: Folio) -> None:
    """Replace every migration entry for `src` by one that maps `dst`, which may be `src` (remove_migration_pte).

    The walk is one for `dst`: its mapping and index are in place. A page that was exclusive is so again, and writable
    if its VMA is; the kernel keeps both apart in the migration entry, to the same effect at the next write.
    """

    def rmap_one(vma: "Vma", address: int) -> bool:
        for vpn, entry, _ in page_vma_mapped_walk(src, vma, address, MIGRATION):
            page = vma.vm_pgoff + vpn - (vma.vm_start >> 12) - src.index if dst.nr_pages > 1 else 0
            new = (dst.pfn + page) << ENTRY_SHIFT | PRESENT
            if entry & EXCLUSIVE:
                dst.exclusive |= 1 << page
                if vma.vm_flags & VM_WRITE:
                    new |= WRITE
            pte_table(vma.vm_mm, vpn)[vpn] = new
            dst.mapcount += 1
        return True

    rmap_walk(kernel, dst, rmap_one)


def migrate_folio(kernel: "Kernel", src: Folio) -> Folio | None:
    """Move the contents and all mappings of `src` to a new folio, which is returned; None if that failed, in which case
    everything is as before (migrate_folio_unmap, migrate_folio_move)."""
    mem = kernel.mem
    src.refs += 1  # isolated
    dst = mem.alloc() if src.nr_pages == 1 else mem.alloc_large(src.nr_pages)
    dst.refs += 1
    with kernel.locks.folio(src):
        pinned = None if folio_test_ksm(src) else kernel.hooks.folio_get_anon_vma(src)
        with kernel.locks.folio(dst):
            was_mapped = src.mapcount > 0
            if was_mapped and pinned is None and not folio_test_ksm(src):
                raise KernelBug("migrate_folio_unmap: a mapped anonymous folio has no anon_vma")
            unmapped = not was_mapped or try_to_migrate(kernel, src)
            moved = unmapped and _move_to_new_folio(kernel, src, dst)
            if was_mapped:
                remove_migration_ptes(kernel, src, dst if moved else src)
        if pinned is not None:
            kernel.hooks.put_anon_vma(pinned)
    folio_put(mem, src)
    folio_put(mem, dst)
    return dst if moved else None


def _move_to_new_folio(kernel: "Kernel", src: Folio, dst: Folio) -> bool:
    """move_to_new_folio: fails while somebody else holds a reference (folio_migrate_mapping)"""
    cached = src in kernel.swap.slot_of
    if src.refs != 1 + cached:
        return False
    dst.mapping = src.mapping
    dst.index = src.index
    if folio_test_ksm(dst):
        dst.mapping.folio = dst  # folio_migrate_ksm
    if cached:
        kernel.swap.replace(src, dst)
    for k in range(src.nr_pages):
        kernel.mem.copy(dst.pfn + k, src.pfn + k)
    src.mapping = None
    return True
