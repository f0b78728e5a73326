# SPDX-License-Identifier: GPL-2.0-only
"""Tearing an address space down (exit_mmap, mm/mmap.c)."""

from typing import TYPE_CHECKING

from rmaplab.mm.zap import zap_all

if TYPE_CHECKING:
    from rmaplab.mm.mm import Mm

__all__ = ["exit_mmap"]


def exit_mmap(mm: "Mm") -> None:
    """Unmap all pages, unlink all VMAs (free_pgtables), then free them."""
    hooks = mm.kernel.hooks
    if mm.kernel.ksm.items:
        mm.kernel.ksm.exit(mm)
    with mm.kernel.locks.mmap_read(mm):
        zap_all(mm)
    with mm.kernel.locks.mmap_write(mm):
        for vma in mm.vmas:
            hooks.unlink_anon_vmas(vma)
        for vma in mm.vmas:
            hooks.vm_area_free(vma)
    mm.vmas.clear()
    mm.starts.clear()
    hooks.mm_gone(mm)
