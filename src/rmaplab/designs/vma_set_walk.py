# SPDX-License-Identifier: GPL-2.0-only
"""How :mod:`rmaplab.designs.vma_set` comes from a folio to the VMAs that map it, and what keeps these there.

A walk locks every member for reading (vma_start_read) before it visits the first, so that from then on nothing is
forked, split, merged, moved or unmapped that maps the folio. Exit zaps before it locks VMAs, as MADV_DONTNEED and
faults do, under the page-table lock alone; to free page tables it locks them.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from typing import Any

from rmaplab.designs.anon_vma import vma_address
from rmaplab.designs.plain_vma import PlainVmas
from rmaplab.designs.vma_list import Link, Members, Pinned, Relatives, maps
from rmaplab.mm.folio import Folio
from rmaplab.mm.hooks import WalkContended
from rmaplab.mm.slab import AllocationFailure, SlabCache
from rmaplab.mm.vma import Vma

__all__ = ["VmaSetWalk"]


class VmaSetWalk(PlainVmas):
    """Hooks 3, 4, 11, 12 and 16."""

    relatives: Relatives
    _links: SlabCache

    def _link(self) -> Link:
        """A new element. Most are needed under spinlocks, and no hook is asked before they are taken: from a reserve
        (mempool) that is never empty here."""
        while True:
            with suppress(AllocationFailure):
                return self._links.alloc(Link())

    def _list_lock(self, members: Members) -> AbstractContextManager[Any]:
        return self.kernel.locks.folio_list(members)  # type: ignore[no-any-return]

    # --- hook 3

    def rmap_walk_anon(self, folio: Folio, pinned: Any = None, locked: bool = False) -> Iterator[tuple[Vma, int]]:
        """The members, all locked before the first is visited. With a pin they are."""
        with ExitStack() as held:
            if pinned is None:
                vmas: dict[Vma, None] = {}
                while self._lock_more(folio, vmas, held):
                    pass
            else:
                vmas = pinned.vmas
                self._list_now(folio, pinned)
            for vma in vmas:
                address = vma_address(vma, folio.index, folio.nr_pages)
                if address is not None:
                    yield vma, address

    def _lock_more(self, folio: Folio, vmas: dict[Vma, None], held: ExitStack, pin: Pinned | None = None) -> bool:
        """Lock the members that are not among `vmas`. False if there are none: all are locked, and nobody can become a
        member by fork, split, merge or mremap any more. Then the list is pinned.

        A member has an entry, so its memory is not freed while the RCU section lasts. Under the folio lock nobody may
        wait for the lock of a VMA.
        """
        locks = self.kernel.locks
        with locks.rcu_read():
            members = folio.mapping
            if not isinstance(members, Members):
                return False
            with self._list_lock(members):
                new = [vma for vma in members.vmas if vma not in vmas]
                if not new:
                    if pin is not None:
                        if members.pinned:
                            raise WalkContended  # one pin at a time
                        members.pinned, pin.members = dict(vmas), members
                    return False
            for vma in new:
                guard = locks.vma_start_read(vma)
                if guard is None:
                    raise WalkContended(vma.vm_mm)
                held.enter_context(guard)
                vmas[vma] = None
        return True

    # --- hook 4

    def folio_get_anon_vma(self, folio: Folio) -> Any:
        """All members locked until they are put: nothing that maps the folio is forked, moved, split or unmapped while
        it is under migration or being split. They stay members, also without an entry."""
        if not folio.mapcount:
            return None
        pinned = Pinned(folio)
        with ExitStack() as held:
            while self._lock_more(folio, pinned.vmas, held, pinned):
                pass
            if pinned.members is None:
                return None  # KSM has it
            pinned.held = held.pop_all()
        return pinned

    def put_anon_vma(self, pinned: Any) -> None:
        """Members whose last entry went meanwhile (exit, copy-on-write) go now; all, if no folio has the list any more:
        after a split, and where KSM took the folio. After a migration two have it: the old one names it still."""
        named: dict[Members, list[Folio]] = {}
        for folio in pinned.folios:
            members = folio.mapping
            if isinstance(members, Members):
                named.setdefault(members, []).append(folio)
        for members, folios in named.items():
            self._settle(folios, members, pinned)
        if pinned.members not in named:
            with self._list_lock(pinned.members):
                for vma in list(pinned.members.vmas):
                    self._links.free(pinned.members.vmas.pop(vma))
        pinned.held.close()

    def _settle(self, folios: list[Folio], members: Members, pinned: Pinned) -> None:
        """The VMAs are still locked. Folios that name one list have one index."""
        for vma in pinned.vmas:
            with self._table_lock(folios[0], vma):  # no entry goes between the look and the end of the pin
                mapped = any(maps(folio, vma) for folio in folios)
                with self._list_lock(members):
                    members.pinned.pop(vma, None)
                    if not mapped and vma in members.vmas:
                        self._links.free(members.vmas.pop(vma))

    def _table_lock(self, folio: Folio, vma: Vma) -> AbstractContextManager[Any]:
        """The lock of the (first) page table that maps `folio` in `vma`."""
        address = vma_address(vma, folio.index, folio.nr_pages)
        if address is None:
            return nullcontext()
        return self.kernel.locks.page_table(vma.vm_mm, address)  # type: ignore[no-any-return]

    def _list_now(self, folio: Folio, pinned: Pinned) -> None:
        """The walk that restores the entries of `folio`: it has the list, or, after a split, its part of it."""
        pinned.folios[folio] = None
        if folio.nr_pages < pinned.nr_pages and folio.mapping is pinned.members:
            own = Members()
            for vma in pinned.vmas:
                with self._table_lock(folio, vma):
                    mapped = maps(folio, vma)
                if mapped:
                    own.vmas[vma] = self._link()
                    own.pinned[vma] = None
            folio.mapping = own

    def split_lock(self, pinned: Any) -> AbstractContextManager[Any]:
        """Hook 16: nothing: a walk without the folio lock holds a reference, so the split does not get the folio; all
        else holds the lock of a VMA, which the pin has."""
        return nullcontext()

    # --- hooks 11 and 12

    def ksm_pin(self, vma: Vma) -> Any:
        """Hook 11: the mm; KSM forgets its pages before it goes."""
        return vma.vm_mm

    def ksm_walk(self, pinned: Any, address: int) -> Iterator[tuple[Vma, int]]:
        """Hook 11: KSM's folios have no list, so all relatives that are still in use are asked at the same address."""
        locks = self.kernel.locks
        with locks.anon_vma_read(self.relatives):
            for mm in list(self.relatives.rings.get(pinned, (pinned,))):
                if not mm.mmget_not_zero():
                    continue
                try:
                    with locks.rcu_read():
                        vma = mm.vma_lookup(address)
                        guard = nullcontext() if vma is None else locks.vma_start_read(vma)
                    if guard is None:
                        raise WalkContended(mm)
                    with guard:
                        if vma is not None and vma.anon_vma is not None and vma.vm_start <= address < vma.vm_end:
                            yield vma, address
                finally:
                    self.kernel.mmput_async(mm)

    def ksm_unpin(self, pinned: Any) -> None:
        """Hook 11: nothing."""

    def collect_procs_anon(self, folio: Folio) -> Iterator[tuple[Vma, int]]:
        """Hook 12: the same walk."""
        return self.rmap_walk_anon(folio)
