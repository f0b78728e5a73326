# SPDX-License-Identifier: GPL-2.0-only
"""ANON_VMA_LAZY, the series of May 2026: no anon_vma before a fork needs one.

``vma->anon_vma`` is a tagged word. Here each tag is a type of its own:

- ``None``: never faulted
- a :class:`Vma` (ANON_VMA_TREE_VMA): lazy; the word names the *root VMA*, and the folios name it too
- a :class:`TreeParent` (ANON_VMA_TREE_PARENT): a forked child's VMA that owns no anon_vma; the word names the parent's,
  and so do the folios
- an :class:`AnonVma`: regular

Split, merge, mremap and exit are not public; what :mod:`lazy_root` and this file do there, and why it is right, is
told in docs/designs/anon_vma_lazy.md.
"""

from rmaplab.designs.anon_vma import AnonVma
from rmaplab.designs.lazy_root import LazyRootDesign
from rmaplab.mm.flags import PAGE_SHIFT
from rmaplab.mm.folio import Folio
from rmaplab.mm.vma import Vma

__all__ = ["AnonVmaLazyDesign", "TreeParent"]


class TreeParent:
    """ANON_VMA_TREE_PARENT: the parent's anon_vma with a tag. One object for each anon_vma, so that equal words are
    the same object."""

    __slots__ = ("parent",)

    def __init__(self, parent: AnonVma) -> None:
        self.parent = parent


class AnonVmaLazyDesign(LazyRootDesign):
    """The series."""

    name = "anon_vma_lazy"
    walk_locks_vma = False  # "no anon_vma lock"; only migration takes the VMA lock
    root_pins_mm = False  # vm_rcuref is for the VMA's lifetime only

    def lazy_root(self, vma: Vma) -> Vma | None:
        """TREE_VMA's word is the root."""
        word = vma.anon_vma
        return word if isinstance(word, Vma) else None

    def mark(self, vma: Vma, root: Vma) -> None:
        """TREE_VMA."""
        vma.anon_vma = root

    def upgrade(self, vma: Vma) -> None:
        """TREE_PARENT becomes a child of the parent's anon_vma, as mainline's fork would have made it at once; all
        VMAs of the mm with the same word together, for the reason that holds for a group."""
        word = vma.anon_vma
        if not isinstance(word, TreeParent):
            super().upgrade(vma)
            return
        parent = word.parent
        anon_vma = self._anon_vma_alloc()
        anon_vma.parent = parent
        anon_vma.root = parent.root
        anon_vma.root.refcount += 1
        parent.num_children += 1
        members = [m for m in vma.vm_mm.vmas if m.anon_vma is word]
        parent.num_active_vmas -= len(members)
        self.link_all(members, anon_vma)

    def owner(self, vma: Vma) -> AnonVma | None:
        word = vma.anon_vma
        if isinstance(word, TreeParent):
            return word.parent
        return word if isinstance(word, AnonVma) else None

    def _singular(self, vma: Vma) -> bool:
        return not isinstance(vma.anon_vma, TreeParent) and super()._singular(vma)

    # --- hook 2

    def folio_set_anon(self, folio: Folio, vma: Vma, address: int, exclusive: bool) -> None:
        """A folio of a TREE_PARENT VMA names the parent's anon_vma, in whose tree the VMA is."""
        word = vma.anon_vma
        if isinstance(word, TreeParent):
            folio.mapping = word.parent if exclusive else word.parent.root
            folio.index = vma.vm_pgoff + ((address - vma.vm_start) >> PAGE_SHIFT)
        else:
            super().folio_set_anon(folio, vma, address, exclusive)

    # --- hook 5

    def anon_vma_fork(self, vma: Vma, pvma: Vma) -> None:
        """The parent's VMA is upgraded; the child's is linked with its anon_vmas and gets none of its own."""
        if pvma.anon_vma is None:
            return
        self.upgrade(pvma)
        vma.anon_vma = None
        self.anon_vma_clone(vma, pvma)
        if vma.anon_vma is not None:
            return
        parent: AnonVma = pvma.anon_vma
        if parent.tagged is None:
            parent.tagged = TreeParent(parent)
        vma.anon_vma = parent.tagged
        parent.num_active_vmas += 1

    # --- figures

    def vma_fields(self) -> dict[str, int]:
        """Bytes that the design adds to vm_area_struct, by field: the tagged word holds the root already, but for an
        upgraded VMA, whose folios may still name it."""
        return {"root VMA": 8, "vm_rcuref": 8, "base": 8}
