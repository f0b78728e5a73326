# SPDX-License-Identifier: GPL-2.0-only
"""What the designs with a *root VMA* share: groups of lazy VMAs, and their upgrade.

A group is the VMAs that were marked lazy with one root: in one mm, never forked, and mapped at one base (the address
at which page index 0 would lie). Their folios name the root VMA; a walk finds them through the root's mm at
address = base + index. How a VMA is marked is the design's business (:meth:`LazyRootDesign.lazy_root`). Why split,
merge, mremap and exit are right: docs/designs/anon_vma_lazy.md.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

from rmaplab.designs.anon_vma import AnonVma, AnonVmaDesign
from rmaplab.designs.lazy_walk import LazyWalk, Pinned
from rmaplab.mm.flags import PAGE_SHIFT
from rmaplab.mm.folio import Folio
from rmaplab.mm.mm import Mm
from rmaplab.mm.vma import Vma

__all__ = ["LazyRoot", "LazyRootDesign", "mapping_base"]


class LazyRoot:
    """What a root VMA keeps in its reserved fields.

    base: address in bytes at which page index 0 of the group would lie
    refs: who holds the root VMA (vm_rcuref): it itself as long as it is in its mm, the VMAs of its group, lazy or
        upgraded since, itself included, and walkers. With the last it is freed
    """

    __slots__ = ("base", "refs")
    ATOMIC: ClassVar = ("base", "refs")

    def __init__(self, base: int) -> None:
        self.base = base
        self.refs = 1

    def try_get(self) -> bool:
        """vma_get: inc-not-zero"""
        if not self.refs:
            return False
        self.refs += 1
        return True


def mapping_base(vma: Vma) -> int:
    """The address at which page index 0 of `vma` would lie (vma_mapping_base)."""
    return vma.vm_start - (vma.vm_pgoff << PAGE_SHIFT)


class LazyRootDesign(LazyWalk):
    """Fields of a VMA besides `anon_vma`: `reserved1` the root that it holds (also after an upgrade, since folios may
    still name it), `reserved2` the :class:`LazyRoot` of a root.

    root_pins_mm: a root VMA holds its mm_struct (mmgrab), and who walks becomes a user of it
    """

    objects: ClassVar = (*AnonVmaDesign.objects, LazyRoot)
    named = Vma
    root_pins_mm = True

    # --- to be answered by the design

    def lazy_root(self, vma: Vma) -> Vma | None:
        """The root of `vma` if it is lazy."""
        raise NotImplementedError

    def mark(self, vma: Vma, root: Vma) -> None:
        """Put the lazy mark into ``vma.anon_vma``."""
        raise NotImplementedError

    def wants_lazy(self, vma: Vma) -> bool:
        """May `vma` become lazy at its first fault?"""
        return True

    # --- what a lazy folio names

    def mm_of(self, named: Vma) -> Mm:
        return named.vm_mm

    def base_of(self, named: Vma) -> int:
        return named.reserved2.base  # type: ignore[no-any-return]

    def belongs_to(self, named: Vma) -> Callable[[Vma], bool]:
        return lambda vma: vma.reserved1 is named

    def try_hold(self, named: Vma) -> bool:
        return named.reserved2.try_get()  # type: ignore[no-any-return]

    def let_go(self, named: Vma) -> None:
        lazy: LazyRoot = named.reserved2
        lazy.refs -= 1
        if not lazy.refs:
            mm = named.vm_mm
            self._vmas.free(named)
            if self.root_pins_mm:
                self.kernel.mmdrop(mm)

    def walker_is_user(self) -> bool:
        return self.root_pins_mm

    # --- groups

    def hold(self, vma: Vma, root: Vma) -> None:
        """`vma` joins the group of `root`."""
        vma.reserved1 = root
        root.reserved2.refs += 1

    def drop(self, vma: Vma) -> None:
        """`vma` leaves its group."""
        root: Vma | None = vma.reserved1
        if root is not None:
            vma.reserved1 = None
            self.let_go(root)

    def _make_root(self, vma: Vma) -> bool:
        """`vma` becomes a root. False if an older group still needs it as its own."""
        lazy: LazyRoot | None = vma.reserved2
        base = mapping_base(vma)
        if lazy is None:
            vma.reserved2 = LazyRoot(base)
            if self.root_pins_mm:
                self.kernel.mmgrab(vma.vm_mm)
        elif lazy.refs > 1:
            return False
        else:
            lazy.base = base
        return True

    def upgrade(self, vma: Vma) -> None:
        """Give a lazy `vma`, and with it its whole group, a regular anon_vma.

        All at once: a large folio may span several of them, and the first of its pages that is shared or moved makes
        the whole folio name the new anon_vma.
        """
        root = self.lazy_root(vma)
        if root is None:
            return
        alone = root.reserved2.refs == (2 if root is vma else 1)
        members = [vma] if alone else [m for m in vma.vm_mm.vmas if self.lazy_root(m) is root]
        self.link_all(members, self._new_root())

    def owner(self, vma: Vma) -> AnonVma | None:
        return None if self.lazy_root(vma) is not None else vma.anon_vma

    def _singular(self, vma: Vma) -> bool:
        return self.lazy_root(vma) is not None or super()._singular(vma)

    # --- hook 1

    def anon_vma_prepare(self, vma: Vma) -> None:
        """Mark the VMA lazy, which allocates nothing: as a root of its own, or with the root of a neighbour that it may
        merge with one day. Next to a regular anon_vma, or where an older group still needs this VMA as its root, do as
        mainline does."""
        if not self.wants_lazy(vma):
            super().anon_vma_prepare(vma)
            return
        with self.kernel.locks.lockless():
            neighbour = self._find_mergeable_vma(vma)
            root = self.lazy_root(neighbour) if neighbour is not None else None
        if root is None and neighbour is not None:
            super().anon_vma_prepare(vma)
            return
        with self.kernel.locks.page_table_lock(vma.vm_mm):
            if vma.anon_vma is not None:
                return  # another fault was first
            if root is not None or self._make_root(vma):
                root = root or vma
                self.hold(vma, root)
                self.mark(vma, root)
                return
        super().anon_vma_prepare(vma)

    # --- hook 2

    def folio_set_anon(self, folio: Folio, vma: Vma, address: int, exclusive: bool) -> None:
        """A folio of a lazy VMA names its root."""
        root = self.lazy_root(vma)
        if root is None:
            super().folio_set_anon(folio, vma, address, exclusive)
            return
        folio.mapping = root
        folio.index = vma.vm_pgoff + ((address - vma.vm_start) >> PAGE_SHIFT)

    def folio_move_anon_rmap(self, folio: Folio, vma: Vma) -> None:
        folio.mapping = self.lazy_root(vma) or self.owner(vma)

    # --- hook 7

    def anon_vma_clone(self, dst: Vma, src: Vma) -> None:
        """A part split off a lazy VMA joins its group. A copy that mremap makes lies at another base: it does not."""
        self._inherit(dst, src)
        super().anon_vma_clone(dst, src)

    def dup_anon_vma(self, dst: Vma, src: Vma) -> None:
        """`dst` grows over folios of `src`, which may name a root that only `src` holds."""
        super().dup_anon_vma(dst, src)
        self._inherit(dst, src)

    def _inherit(self, dst: Vma, src: Vma) -> None:
        root = src.reserved1
        if root is None or dst.reserved1 is not None or dst.vm_mm is not src.vm_mm:
            return
        if mapping_base(dst) == root.reserved2.base:
            self.hold(dst, root)

    def is_mergeable_anon_vma(self, target: Vma, anon_vma: Any, source: Vma | None, copied_from: Vma | None) -> bool:
        """As mainline, and two lazy VMAs only of one group: folios of the VMA that goes would name a lost root."""
        if not super().is_mergeable_anon_vma(target, anon_vma, source, copied_from):
            return False
        return source is None or self._one_group(target, source)

    def same_anon_vma(self, one: Vma, other: Vma) -> bool:
        return super().same_anon_vma(one, other) and self._one_group(one, other)

    def _one_group(self, one: Vma, other: Vma) -> bool:
        root, other_root = self.lazy_root(one), self.lazy_root(other)
        return root is None or other_root is None or root is other_root

    def unlink_anon_vmas(self, vma: Vma) -> None:
        if self.lazy_root(vma) is None:
            super().unlink_anon_vmas(vma)
        vma.anon_vma = None
        self.drop(vma)

    def anon_vma_lock(self, vma: Vma) -> AbstractContextManager[Any]:
        owner = self.owner(vma)
        return nullcontext() if owner is None else self.kernel.locks.anon_vma_write(owner)

    # --- hook 8

    def vm_area_free(self, vma: Vma) -> None:
        """A root that others hold stays until they are gone."""
        if vma.reserved2 is not None:
            self.let_go(vma)
        else:
            super().vm_area_free(vma)

    # --- hook 9

    def copy_vma(self, vma: Vma, pgoff_kept: bool) -> None:
        """The pages are about to leave the base of their group, where a walk from the root would look for them."""
        if self.lazy_root(vma) is not None:
            self.upgrade(vma)

    def move_page_tables(self, folio: Folio, vma: Vma, new_vma: Vma) -> None:
        """A moved lazy folio names the anon_vma that its VMA was upgraded to. The stack of an execve moves as a whole,
        root and all: the base follows."""
        if not isinstance(folio.mapping, Vma):
            return
        if new_vma is vma and vma.reserved2 is not None:
            vma.reserved2.base = mapping_base(vma)
        else:
            folio.mapping = new_vma.anon_vma

    # --- extra hooks

    def ksm_pin(self, vma: Vma) -> Any:
        """Hook 11: a page that KSM merged outlives its VMA's address: KSM wants a regular anon_vma."""
        if self.lazy_root(vma) is not None:
            self.upgrade(vma)
        return super().ksm_pin(vma)

    def split_lock(self, pinned: Any) -> AbstractContextManager[Any]:
        """Hook 16: nothing for a lazy folio: hook 4 has locked its VMAs, and a walk that does not hold the folio lock
        holds a reference, so that the split does not get the folio (folio_ref_freeze) and puts back what it took."""
        return nullcontext() if isinstance(pinned, Pinned) else super().split_lock(pinned)

    # --- figures

    def vma_fields(self) -> dict[str, int]:
        """Bytes that the design adds to vm_area_struct, by field."""
        return {"root VMA": 8, "reference count": 8, "base": 8}
