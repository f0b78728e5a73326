# SPDX-License-Identifier: GPL-2.0-only
"""Mainline: `struct anon_vma` and `struct anon_vma_chain` (mm/rmap.c, include/linux/rmap.h).

A folio names the anon_vma of the VMA that made it. An anon_vma knows, through one anon_vma_chain (AVC) each, all
VMAs that may map its folios: those of the process that owns it and those of all its descendants.
"""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, ClassVar

from rmaplab.mm.bug import KernelBug
from rmaplab.mm.flags import PAGE_SHIFT
from rmaplab.mm.folio import Folio
from rmaplab.mm.kernel import Kernel
from rmaplab.mm.mm import Mm
from rmaplab.mm.slab import AllocationFailure
from rmaplab.mm.vma import Vma, anon_vma_compatible

__all__ = ["AnonVma", "AnonVmaChain", "AnonVmaDesign", "vma_address"]


class AnonVma:
    """`struct anon_vma`.

    refcount: references besides the VMAs': for a root, one for each other anon_vma of the tree and itself
    num_children: anon_vmas whose parent this is; a root is its own
    num_active_vmas: VMAs whose `anon_vma` points here
    avcs: the interval tree, as a list
    tagged: the same pointer with a tag, for designs that tag it
    """

    __slots__ = ("avcs", "num_active_vmas", "num_children", "parent", "refcount", "root", "tagged")
    ATOMIC: ClassVar = ("refcount",)
    CONST: ClassVar = ("root", "parent", "tagged")

    def __init__(self) -> None:
        self.root: AnonVma = self
        self.parent: AnonVma = self
        self.refcount = 1
        self.num_children = 0
        self.num_active_vmas = 0
        self.avcs: list[AnonVmaChain] = []
        self.tagged: Any = None

    def try_get(self) -> bool:
        """atomic_inc_not_zero(&anon_vma->refcount)"""
        if not self.refcount:
            return False
        self.refcount += 1
        return True


class AnonVmaChain:
    """`struct anon_vma_chain`: the link of one VMA with one anon_vma."""

    __slots__ = ("anon_vma", "vma")

    def __init__(self, vma: Vma, anon_vma: AnonVma) -> None:
        self.vma = vma
        self.anon_vma = anon_vma


def vma_address(vma: Vma, index: int, nr_pages: int) -> int | None:
    """Where the first page of [index, index + nr_pages) that `vma` covers would be mapped in it (vma_address)."""
    offset = index - vma.vm_pgoff
    if offset >= 0:
        address = vma.vm_start + (offset << PAGE_SHIFT)
        return address if address < vma.vm_end else None
    return vma.vm_start if offset + nr_pages > 0 else None


def _first_index(avc: AnonVmaChain) -> int:
    return avc.vma.vm_pgoff


class AnonVmaDesign:
    """Mainline anon_vma."""

    name = "anon_vma"
    objects: ClassVar[tuple[type, ...]] = (AnonVma, AnonVmaChain)
    """Classes that a checker watches: their fields are ATOMIC, CONST, or else protected by a lock."""
    wants_removals = False
    wants_migration_entries = False

    def attach(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.profile = kernel.profile
        self._vmas = kernel.vm_area_struct
        self._anon_vmas = kernel.anon_vma
        self._avcs = kernel.anon_vma_chain

    # --- objects

    def _anon_vma_alloc(self) -> AnonVma:
        return self._anon_vmas.alloc(AnonVma())

    def _new_root(self) -> AnonVma:
        """The anon_vma at the root of a new tree."""
        anon_vma = self._anon_vma_alloc()
        anon_vma.num_children += 1  # the self-parent link
        return anon_vma

    def link_all(self, members: Iterable[Vma], anon_vma: AnonVma) -> None:
        """Make `anon_vma` the own one of `members`, VMAs without one. On AllocationFailure it is freed again, as if all
        have got one meanwhile."""
        vmas = list(members)
        avcs: list[AnonVmaChain] = []
        try:
            for vma in vmas:
                avcs.append(self._avcs.alloc(AnonVmaChain(vma, anon_vma)))
        except AllocationFailure:
            for avc in avcs:
                self._avcs.free(avc)
            self._put(anon_vma)
            raise
        with self.kernel.locks.anon_vma_write(anon_vma):
            for avc in avcs:
                avc.vma.anon_vma = anon_vma
                self._chain(avc.vma, avc)
                anon_vma.num_active_vmas += 1

    @staticmethod
    def _chain(vma: Vma, avc: AnonVmaChain) -> None:
        if vma.anon_vma_chain:
            vma.anon_vma_chain.append(avc)
        else:
            vma.anon_vma_chain = [avc]
        avc.anon_vma.avcs.append(avc)

    def _put(self, anon_vma: AnonVma) -> None:
        """put_anon_vma: the root goes with the last of its tree."""
        anon_vma.refcount -= 1
        if anon_vma.refcount:
            return
        root = anon_vma.root
        self.kernel.locks.anon_vma_drain(anon_vma)
        self._anon_vmas.free(anon_vma)
        if root is not anon_vma:
            self._put(root)
        del anon_vma.root, anon_vma.parent, anon_vma.tagged  # poison, and no reference cycles

    def owner(self, vma: Vma) -> AnonVma | None:
        """The anon_vma that the folios of `vma` name."""
        return vma.anon_vma  # type: ignore[no-any-return]

    def _singular(self, vma: Vma) -> bool:
        """Linked with one anon_vma only, so never forked (list_is_singular)."""
        return len(vma.anon_vma_chain) == 1

    def _had_uncowed_parents(self, vma: Vma | None) -> bool:
        """Forked, and still linked with the anon_vmas of its parents (vma_had_uncowed_parents)."""
        return vma is not None and vma.anon_vma is not None and not self._singular(vma)

    # --- hook 1

    def anon_vma_prepare(self, vma: Vma) -> None:
        """__anon_vma_prepare: the neighbour's anon_vma if the two VMAs may merge one day, else a new one."""
        avc: AnonVmaChain | None = self._avcs.alloc(AnonVmaChain(vma, None))  # type: ignore[arg-type]
        anon_vma = self._find_mergeable(vma)
        allocated: AnonVma | None = None
        if anon_vma is None:
            try:
                anon_vma = allocated = self._new_root()
            except AllocationFailure:
                self._avcs.free(avc)
                raise
        locks = self.kernel.locks
        with locks.anon_vma_write(anon_vma), locks.page_table_lock(vma.vm_mm):
            if vma.anon_vma is None:  # else another fault was first
                assert avc is not None
                vma.anon_vma = anon_vma
                avc.anon_vma = anon_vma
                self._chain(vma, avc)
                anon_vma.num_active_vmas += 1
                avc = allocated = None
        if allocated is not None:
            self._put(allocated)
        if avc is not None:
            self._avcs.free(avc)

    def _find_mergeable_vma(self, vma: Vma) -> Vma | None:
        """A neighbour that may become one VMA with `vma` one day and has one anon_vma only (reusable_anon_vma)."""
        prev, next_ = vma.vm_mm.prev_next(vma)
        if next_ is not None and self._singular(next_) and anon_vma_compatible(vma, next_):
            return next_
        if prev is not None and self._singular(prev) and anon_vma_compatible(prev, vma):
            return prev
        return None

    def _find_mergeable(self, vma: Vma) -> AnonVma | None:
        """find_mergeable_anon_vma"""
        with self.kernel.locks.lockless():  # the neighbours may get theirs at this moment
            neighbour = self._find_mergeable_vma(vma)
            return None if neighbour is None else self.owner(neighbour)

    # --- hook 2

    def folio_set_anon(self, folio: Folio, vma: Vma, address: int, exclusive: bool) -> None:
        """__folio_set_anon: a page that may be shared belongs to the oldest anon_vma, which all sharers are in."""
        anon_vma = vma.anon_vma
        folio.mapping = anon_vma if exclusive else anon_vma.root
        folio.index = vma.vm_pgoff + ((address - vma.vm_start) >> PAGE_SHIFT)

    def folio_move_anon_rmap(self, folio: Folio, vma: Vma) -> None:
        """folio_move_anon_rmap: from an ancestor's anon_vma to our own, so that walks visit fewer VMAs."""
        folio.mapping = vma.anon_vma

    # --- hook 3

    def rmap_walk_anon(self, folio: Folio, pinned: Any = None, locked: bool = False) -> Iterator[tuple[Vma, int]]:
        """rmap_walk_anon: the VMAs of the interval tree that overlap the folio's indices"""
        if pinned is None and not locked:
            with self._folio_lock_anon_vma_read(folio) as anon_vma:
                yield from self._interval_tree(folio, anon_vma)
            return
        anon_vma = folio.mapping
        if not isinstance(anon_vma, AnonVma):
            return  # folio_anon_vma: not of this kind, so none
        with nullcontext() if locked else self.kernel.locks.anon_vma_read(anon_vma):
            yield from self._interval_tree(folio, anon_vma)

    @staticmethod
    def _interval_tree(folio: Folio, anon_vma: AnonVma | None) -> Iterator[tuple[Vma, int]]:
        """anon_vma_interval_tree_foreach: by first index, of equal ones the one that was linked first. A child comes
        after its parent, so that a walk does not miss an entry that a fork copies."""
        if anon_vma is None:
            return
        index, nr_pages = folio.index, folio.nr_pages
        for avc in sorted(anon_vma.avcs, key=_first_index):
            address = vma_address(avc.vma, index, nr_pages)
            if address is not None:
                yield avc.vma, address

    @contextmanager
    def _folio_lock_anon_vma_read(self, folio: Folio) -> Iterator[AnonVma | None]:
        """The anon_vma of a mapped folio, locked: folio_lock_anon_vma_read. Its memory is only sure to stay an
        anon_vma inside of the RCU section (SLAB_TYPESAFE_BY_RCU); that the folio is still mapped under the lock says
        that it is still the right one."""
        locks = self.kernel.locks
        while True:
            with locks.rcu_read():
                anon_vma = folio.mapping
                if not isinstance(anon_vma, AnonVma) or not folio.mapcount:
                    break
                guard = locks.anon_vma_trylock_read(anon_vma)
                if guard is not None:
                    same = folio.mapping is anon_vma  # folio_move_anon_rmap does not need this lock
                    mapped = folio.mapcount > 0
                    if not (same and mapped):
                        with guard:
                            pass  # while the memory is sure to be an anon_vma's
                        if same:
                            break
                        continue
                elif not anon_vma.try_get():
                    break
            if guard is not None:
                with guard:
                    yield anon_vma
                return
            try:  # wait for it outside of the section, with a reference
                with locks.anon_vma_read(anon_vma):
                    same = folio.mapping is anon_vma
                    mapped = folio.mapcount > 0
                    if same and mapped:
                        yield anon_vma
                        return
            finally:
                self._put(anon_vma)
            if same:
                break
        yield None

    # --- hook 4

    def folio_get_anon_vma(self, folio: Folio) -> Any:
        """folio_get_anon_vma: a reference, if the folio is still mapped"""
        with self.kernel.locks.rcu_read():
            anon_vma = folio.mapping
            if not folio.mapcount or not isinstance(anon_vma, AnonVma) or not anon_vma.try_get():
                return None
            if folio.mapcount:
                return anon_vma
        self._put(anon_vma)  # it may be another one by now
        return None

    def put_anon_vma(self, pinned: Any) -> None:
        self._put(pinned)

    # --- hook 5

    def anon_vma_fork(self, vma: Vma, pvma: Vma) -> None:
        """anon_vma_fork: link the child with all of the parent's anon_vmas, then give it one of its own unless
        anon_vma_clone found an old one to reuse"""
        if pvma.anon_vma is None:
            return
        vma.anon_vma = None
        self.anon_vma_clone(vma, pvma)
        if vma.anon_vma is not None:
            return
        anon_vma = None
        try:
            anon_vma = self._anon_vma_alloc()
            anon_vma.num_active_vmas += 1
            avc = self._avcs.alloc(AnonVmaChain(vma, anon_vma))
        except AllocationFailure:
            if anon_vma is not None:
                self._put(anon_vma)
            self.unlink_anon_vmas(vma)
            raise
        parent: AnonVma = pvma.anon_vma
        anon_vma.root = parent.root
        anon_vma.parent = parent
        anon_vma.root.refcount += 1
        vma.anon_vma = anon_vma
        with self.kernel.locks.anon_vma_write(anon_vma):
            self._chain(vma, avc)
            parent.num_children += 1

    # --- hook 6

    def try_dup_anon_rmap(self, folio: Folio, vma: Vma, pvma: Vma) -> bool | None:
        """Nothing: the child is linked with the anon_vma that the folio names already."""

    # --- hook 7

    def anon_vma_clone(self, dst: Vma, src: Vma) -> None:
        """anon_vma_clone: link `dst` with every anon_vma of `src`, oldest first

        At fork `dst.anon_vma` is None, and the first anon_vma that no VMA and at most one child uses becomes the
        child's own: that bounds the tree under processes that fork and exit forever.
        """
        if not src.anon_vma_chain:
            return
        faulted = src.anon_vma is not None
        try:
            with self.kernel.locks.anon_vma_write(src.anon_vma_chain[0].anon_vma):
                for pavc in src.anon_vma_chain:
                    anon_vma = pavc.anon_vma
                    self._chain(dst, self._avcs.alloc(AnonVmaChain(dst, anon_vma)))
                    if faulted and dst.anon_vma is None and anon_vma.num_children < 2 and anon_vma.num_active_vmas == 0:
                        dst.anon_vma = anon_vma
                owner = self.owner(dst)
                if owner is not None:
                    owner.num_active_vmas += 1
        except AllocationFailure:
            dst.anon_vma = None  # not counted yet: unlink_anon_vmas must not count it off
            self.unlink_anon_vmas(dst)
            raise

    def dup_anon_vma(self, dst: Vma, src: Vma) -> None:
        """dup_anon_vma: a merge target without an anon_vma takes over that of the VMA it grows over"""
        if src.anon_vma is not None and dst.anon_vma is None:
            dst.anon_vma = src.anon_vma
            self.anon_vma_clone(dst, src)  # undoes both on failure

    def unlink_anon_vmas(self, vma: Vma) -> None:
        """unlink_anon_vmas, newest link first; anon_vmas that became empty are freed in a second pass, outside the
        lock of their root, and the root last"""
        chain = vma.anon_vma_chain
        if not chain:
            return
        empty = []
        with self.kernel.locks.anon_vma_write(chain[0].anon_vma):
            for avc in reversed(chain):
                anon_vma = avc.anon_vma
                anon_vma.avcs.remove(avc)
                if not anon_vma.avcs:
                    anon_vma.parent.num_children -= 1
                    empty.append(avc)
                    continue
                self._avcs.free(avc)
            owner = self.owner(vma)
            if owner is not None:
                owner.num_active_vmas -= 1
                vma.anon_vma = None
        for avc in empty:
            anon_vma = avc.anon_vma
            if anon_vma.num_children or anon_vma.num_active_vmas:
                raise KernelBug("unlink_anon_vmas: an anon_vma without links has children or VMAs")  # VM_WARN_ON
            self._put(anon_vma)
            self._avcs.free(avc)
        vma.anon_vma_chain = ()

    def is_mergeable_anon_vma(self, target: Vma, anon_vma: Any, source: Vma | None, copied_from: Vma | None) -> bool:
        """is_mergeable_anon_vma"""
        target_anon_vma = target.anon_vma
        if not self.profile.merge_asks_uncowed_parents:
            if (target_anon_vma is None or anon_vma is None) and self._singular(target):
                return True
            return target_anon_vma is anon_vma
        if target_anon_vma is None and anon_vma is not None:
            return not self._had_uncowed_parents(source) and not self._had_uncowed_parents(copied_from)
        if target_anon_vma is not None and anon_vma is None:
            return not self._had_uncowed_parents(target)
        return target_anon_vma is anon_vma

    def same_anon_vma(self, one: Vma, other: Vma) -> bool:
        return one.anon_vma is None or other.anon_vma is None or one.anon_vma is other.anon_vma

    def anon_vma_lock(self, vma: Vma) -> AbstractContextManager[Any]:
        if vma.anon_vma is None:
            return nullcontext()
        return self.kernel.locks.anon_vma_write(vma.anon_vma)  # type: ignore[no-any-return]

    # --- hook 8

    def vm_area_alloc(self, mm: Mm) -> Vma:
        return self._vmas.alloc(Vma(mm, 0, 0, 0, 0, None))

    def vm_area_dup(self, orig: Vma, mm: Mm) -> Vma:
        vma = Vma(mm, orig.vm_start, orig.vm_end, orig.vm_pgoff, orig.vm_flags, orig.vm_file)
        vma.anon_vma = orig.anon_vma
        return self._vmas.alloc(vma)

    def vm_area_free(self, vma: Vma) -> None:
        self._vmas.free(vma)

    # --- hook 9

    def copy_vma(self, vma: Vma, pgoff_kept: bool) -> None:
        """Nothing: anon_vma_clone links the copy, and the index of a page moves with its VMA."""

    def move_page_tables(self, folio: Folio, vma: Vma, new_vma: Vma) -> None:
        """Nothing, for the same reason."""

    # --- extra hooks

    def folio_swapped_in(self, folio: Folio, vma: Vma, address: int, exclusive: bool) -> None:
        """Hook 10: nothing. The folio kept its anon_vma, with which every VMA that can name its swap slot is linked."""

    def swapin_needs_copy(self, folio: Folio, vma: Vma) -> bool:
        """Hook 10: no; pages that KSM had merged, which ksm_might_need_to_copy is about, mm knows itself."""
        return False

    def ksm_pin(self, vma: Vma) -> Any:
        """Hook 11, stable_tree_append: a reference on the anon_vma"""
        owner = self.owner(vma)
        assert owner is not None
        owner.refcount += 1
        return owner

    def ksm_walk(self, pinned: Any, address: int) -> Iterator[tuple[Vma, int]]:
        """Hook 11, rmap_walk_ksm: every VMA of the interval tree that covers the address, whatever its offset"""
        with self.kernel.locks.anon_vma_read(pinned):
            for avc in pinned.avcs:
                vma = avc.vma
                if vma.vm_start <= address < vma.vm_end:
                    yield vma, address

    def ksm_unpin(self, pinned: Any) -> None:
        """Hook 11, remove_rmap_item_from_tree"""
        self._put(pinned)

    def collect_procs_anon(self, folio: Folio) -> Iterator[tuple[Vma, int]]:
        """Hook 12: the same interval tree, walked by hand"""
        return self.rmap_walk_anon(folio)

    def collapse_lock(self, vma: Vma) -> AbstractContextManager[Any]:
        """Hook 13: anon_vma_lock_write"""
        return self.kernel.locks.anon_vma_write(vma.anon_vma)  # type: ignore[no-any-return]

    def folio_removed(self, folio: Folio, mm: Mm, address: int) -> None:
        """Hook 14: not wanted."""

    def mm_gone(self, mm: Mm) -> None:
        """Hook 15: the last user is gone (mmput, mmdrop)."""
        self.kernel.mmdrop(mm)

    def copy_migration_entry(self, folio: Folio, vma: Vma, pvma: Vma) -> None:
        """Hook 17: nothing, as hook 6."""

    def split_lock(self, pinned: Any) -> AbstractContextManager[Any]:
        """Hook 16: anon_vma_lock_write"""
        return self.kernel.locks.anon_vma_write(pinned)  # type: ignore[no-any-return]
