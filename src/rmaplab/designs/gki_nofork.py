# SPDX-License-Identifier: GPL-2.0-only
"""The hook form for processes that never fork (claim A): hooks 5 and 6 are the unmodified kernel's.

A process that opted in and forks all the same must not go on in silence, since nothing would make its folios
findable from the child. Two answers, both loud:

- "copy" (the default): no page of a lazy VMA is shared. copy_present_ptes copies it at once, as it does for a page that
  may be pinned for DMA. The child starts with regular anon_vmas; the parent stays lazy.
- "refuse": fork fails with -EAGAIN before it has copied anything.

Either needs a check in the fork path, so this design has a hook 6 of its own after all (or one at the head of
dup_mmap): smaller than an upgrade, but not nothing. What mremap upgraded may be shared later, so that upgrade rewrites
the mappings at once, as in `gki_sync`.
"""

from rmaplab.designs.gki import LazyLock
from rmaplab.designs.gki_sync import GkiSyncDesign
from rmaplab.errors import UserError
from rmaplab.mm.folio import Folio
from rmaplab.mm.hooks import ForkRefused
from rmaplab.mm.vma import Vma

__all__ = ["GkiNoforkDesign"]


class GkiNoforkDesign(GkiSyncDesign):
    """`gki` without an upgrade at fork.

    on_fork: "copy" or "refuse"
    """

    name = "gki_nofork"

    def __init__(self, *, on_fork: str = "copy", locks: int = 1, opt_in: str = "start") -> None:
        super().__init__(locks=locks, opt_in=opt_in)
        if on_fork not in ("copy", "refuse"):
            raise UserError(f"on_fork must be 'copy' or 'refuse', not {on_fork!r}")
        self.on_fork = on_fork

    def anon_vma_fork(self, vma: Vma, pvma: Vma) -> None:
        """The child's VMA of a lazy parent starts unfaulted but for its copies: a regular anon_vma of its own, at the
        root of a new tree, since it shares nothing."""
        self.forked.add(vma.vm_mm)
        if not isinstance(pvma.anon_vma, LazyLock):
            super().anon_vma_fork(vma, pvma)
            return
        if self.on_fork == "refuse":
            raise ForkRefused(f"{self.name}: a process that opted in must not fork")
        vma.anon_vma = None
        self.link_all([vma], self._new_root())

    def try_dup_anon_rmap(self, folio: Folio, vma: Vma, pvma: Vma) -> bool:
        """A folio of a lazy VMA is not shared but copied."""
        return not isinstance(pvma.anon_vma, LazyLock)

    def swapin_needs_copy(self, folio: Folio, vma: Vma) -> bool:
        """Hook 10: a child inherited the swap entry of a lazy page before anything could be copied."""
        mapping = folio.mapping
        if isinstance(mapping, Vma):
            return vma.reserved1 is not mapping
        owner = self.owner(vma)
        return owner is None or getattr(mapping, "root", None) is not owner.root
