# SPDX-License-Identifier: GPL-2.0-only
"""The hook form with synchronous upgrade (claim B): when a lazy VMA gets a regular anon_vma, a page-table walk makes
every folio that its group maps name it at once.

Afterwards nothing mapped names the root, so fork has nothing to upgrade page by page (hook 6), and an upgraded VMA
need not hold its root. What is unmapped at that moment, in the swap cache or under migration, is not reached by a
page-table walk; hook 10 and the walk of the group still have to cope with it.
"""

from collections.abc import Iterable

from rmaplab.designs.anon_vma import AnonVma, AnonVmaDesign
from rmaplab.designs.gki import GkiDesign
from rmaplab.mm.flags import PAGE_SHIFT, PMD_SHIFT
from rmaplab.mm.pagetable import ENTRY_SHIFT, KIND_MASK, MIGRATION, PRESENT, entries, tables_in
from rmaplab.mm.vma import Vma

__all__ = ["GkiSyncDesign"]


class GkiSyncDesign(GkiDesign):
    """`gki`, with all mappings rewritten at the upgrade."""

    name = "gki_sync"

    def link_all(self, members: Iterable[Vma], anon_vma: AnonVma) -> None:
        """Link the group, then rewrite ``folio->mapping`` under the page-table locks."""
        group = list(members)
        super().link_all(group, anon_vma)
        for vma in group:
            self._rewrite(vma, anon_vma)

    def _rewrite(self, vma: Vma, anon_vma: AnonVma) -> None:
        mm, pages = vma.vm_mm, self.kernel.mem.pages
        first, last = vma.vm_start >> PAGE_SHIFT, vma.vm_end >> PAGE_SHIFT
        for i in tables_in(mm.pgd, first, last):
            with self.kernel.locks.page_table(mm, i << PMD_SHIFT):
                for _, entry in entries(mm.pgd, max(first, i << 9), min(last, (i + 1) << 9)):
                    if entry & KIND_MASK in (PRESENT, MIGRATION):
                        folio = pages[entry >> ENTRY_SHIFT]
                        if folio is not None and isinstance(folio.mapping, Vma):
                            folio.mapping = anon_vma

    # --- hook 6: mainline's, which does nothing

    try_dup_anon_rmap = AnonVmaDesign.try_dup_anon_rmap
