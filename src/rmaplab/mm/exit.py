# SPDX-License-Identifier: GPL-2.0-only
"""Tearing an address space down (exit_mmap, mm/mmap.c)."""

from typing import TYPE_CHECKING

from rmaplab.mm.zap import free_pgtables, tlb_finish_mmu, zap_all

if TYPE_CHECKING:
    from rmaplab.mm.folio import Folio
    from rmaplab.mm.mm import Mm

__all__ = ["exit_mmap"]


def exit_mmap(mm: "Mm") -> None:
    """Unmap all pages, hide all VMAs from walks (free_pgtables), then free them. ksm_exit comes before (mmput)."""
    kernel = mm.kernel
    if kernel.ksm.items:
        kernel.ksm.exit(mm)
    batch: list[Folio] = []
    with kernel.locks.mmap_read(mm):
        zap_all(mm, batch)
    with kernel.locks.mmap_write(mm):
        free_pgtables(mm, mm.vmas)
        tlb_finish_mmu(kernel, batch)
        for vma in mm.vmas:
            kernel.hooks.vm_area_free(vma)
        mm.clear()
    kernel.hooks.mm_gone(mm)
