# SPDX-License-Identifier: GPL-2.0-only
"""Another repair of the hook form with synchronous upgrade: walks lock no VMA, as they do in locked.py, but everybody
takes more of the lock that the lazy VMAs share. Who changes what a walk relies on takes it for writing; walks wait:

- unlink_anon_vmas, so that no walk is in a VMA, or below it in its page tables, when these are freed (hook 7)
- the upgrade, so that what a walk finds in ``folio->mapping`` under the lock stays until it lets go; since it rewrites
  all mappings at once, nothing that is shared names a root (hooks 5 and 9)
- hook 4 keeps it for reading until it puts the folio: no upgrade, so no fork, while entries are migration entries

What it does not spare: a root VMA holds its mm, and who walks is a user of it. The price is in docs/designs/locked.md.
"""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from rmaplab.designs.anon_vma import AnonVma
from rmaplab.designs.gki_sync import GkiSyncDesign
from rmaplab.designs.lazy_walk import Pinned
from rmaplab.mm.folio import Folio
from rmaplab.mm.vma import Vma

__all__ = ["GkiSyncSharedDesign"]


class GkiSyncSharedDesign(GkiSyncDesign):
    """`gki_sync`, repaired with its own lock."""

    name = "gki_sync_shared"
    repairs = "gki_sync"
    root_pins_mm = True

    # --- hook 3

    def rmap_walk_anon(self, folio: Folio, pinned: Any = None, locked: bool = False) -> Iterator[tuple[Vma, int]]:
        """Who has pinned a lazy folio holds the lock already."""
        return super().rmap_walk_anon(folio, pinned, locked or isinstance(pinned, Pinned))

    # --- hook 4

    def _pin(self, folio: Folio, named: Vma) -> Pinned | None:
        pinned = super()._pin(folio, named)
        assert pinned is not None
        pinned.guards.append(self.kernel.locks.anon_vma_read(self.lock_of(named.vm_mm)))
        if folio.mapping is named:
            return pinned
        self.put_anon_vma(pinned)
        return None

    # --- hooks 5 and 9

    def link_all(self, members: Iterable[Vma], anon_vma: AnonVma) -> None:
        """Link the group and rewrite ``folio->mapping`` while nobody walks. In the kernel what is linked must have been
        allocated before: an allocation under the lock may reclaim, which walks under it."""
        group = list(members)
        with self.kernel.locks.anon_vma_write(self.lock_of(group[0].vm_mm)):
            super().link_all(group, anon_vma)

    # --- hook 7

    def unlink_anon_vmas(self, vma: Vma) -> None:
        lazy = self.lazy_root(vma) is not None
        with self.kernel.locks.anon_vma_write(self.lock_of(vma.vm_mm)) if lazy else nullcontext():
            super().unlink_anon_vmas(vma)

    # --- extra hooks

    def split_lock(self, pinned: Any) -> AbstractContextManager[Any]:
        """Hook 16: nothing for a lazy folio, as in LazyRootDesign; hook 4 holds the shared lock."""
        return nullcontext() if isinstance(pinned, Pinned) else super().split_lock(pinned)
