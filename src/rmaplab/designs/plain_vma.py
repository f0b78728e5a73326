# SPDX-License-Identifier: GPL-2.0-only
"""What designs share whose folios do not name an object of single VMAs: hook 8 as in mainline, and free merging.

Mainline refuses to merge VMAs that have different anon_vmas, or one that a fork left with its parents' (is_mergeable_
anon_vma). Where no VMA has an object of its own there is nothing to be different, so adjacent VMAs merge whenever
their flags, file and page offset agree: a design that uses this file has fewer VMAs than mainline.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from rmaplab.designs.anon_vma import AnonVmaDesign
from rmaplab.mm.folio import Folio
from rmaplab.mm.kernel import Kernel
from rmaplab.mm.mm import Mm
from rmaplab.mm.vma import Vma

__all__ = ["PlainVmas"]


class PlainVmas:
    """Hook 8, and the two questions of hook 7 about merging."""

    kernel: Kernel
    as_mainline: tuple[int, ...] = (8,)  # for `rmaplab hooks`

    def is_mergeable_anon_vma(self, target: Vma, anon_vma: Any, source: Vma | None, copied_from: Vma | None) -> bool:
        """Yes, but for one case: where mremap moves faulted pages next to a VMA that never was, and the kernel is older
        than 61f67c230a5e "mm/vma: fix anon_vma UAF on mremap() faulted, unfaulted merge", nobody would tell the target
        (dup_anon_vma) that it is faulted now."""
        dups = self.kernel.profile.merge_dups_copied_from
        return dups or copied_from is None or anon_vma is None or target.anon_vma is not None

    def same_anon_vma(self, one: Vma, other: Vma) -> bool:
        """Always."""
        return True

    def vm_area_alloc(self, mm: Mm) -> Vma:
        """As mainline."""
        return self.kernel.vm_area_struct.alloc(Vma(mm, 0, 0, 0, 0, None))

    def vm_area_dup(self, orig: Vma, mm: Mm) -> Vma:
        """As mainline: the copy has the word of `orig` until hook 5 or 7 gives it one of its own."""
        vma = Vma(mm, orig.vm_start, orig.vm_end, orig.vm_pgoff, orig.vm_flags, orig.vm_file)
        vma.anon_vma = orig.anon_vma
        return self.kernel.vm_area_struct.alloc(vma)

    def vm_area_free(self, vma: Vma) -> None:
        """As mainline."""
        self.kernel.vm_area_struct.free(vma)

    def copy_vma(self, vma: Vma, pgoff_kept: bool) -> bool | None:
        """Nothing: the index of a page moves with its VMA."""
        return None

    def swapin_needs_copy(self, folio: Folio, vma: Vma) -> bool:
        """No: whoever names a swap slot got it by fork, with its index."""
        return False

    def collapse_lock(self, vma: Vma) -> AbstractContextManager[Any]:
        """Nothing, unless the design says otherwise."""
        return nullcontext()

    copy_migration_entry = AnonVmaDesign.copy_migration_entry
    """The same function, so that a design which does not replace it does not count as having hook 17."""
