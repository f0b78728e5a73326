# SPDX-License-Identifier: GPL-2.0-only
"""ANON_VMA_LAZY, the series of May 2026: no anon_vma before a fork needs one.

``vma->anon_vma`` is a tagged word. Here each tag is a type of its own:

- ``None``: never faulted
- a :class:`Vma` (ANON_VMA_TREE_VMA): lazy; the word names the *root VMA*, and the folios name it too
- a :class:`TreeParent` (ANON_VMA_TREE_PARENT): a forked child's VMA that owns no anon_vma; the word names the parent's,
  and so do the folios
- an :class:`AnonVma`: regular

Lazy VMAs with one root are a *group*: mapped at one base (address of page index 0), in one mm, never forked. A walk
finds them through the root's mm by address = base + index. Split, merge, mremap and exit are not public; what this
file does there, and why it is right, is told in docs/designs/anon_vma_lazy.md.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from rmaplab.designs.anon_vma import AnonVma, AnonVmaDesign, vma_address
from rmaplab.mm.flags import PAGE_SHIFT
from rmaplab.mm.folio import Folio
from rmaplab.mm.vma import Vma

__all__ = ["AnonVmaLazyDesign", "LazyRoot", "TreeParent"]


class LazyRoot:
    """What a root VMA keeps in its reserved fields.

    base: address in bytes at which page index 0 of the group would lie
    refs: VMAs that hold the root, itself included (vm_rcuref): its group, lazy or upgraded since
    left: the root VMA has left its mm and is only kept for the others
    """

    __slots__ = ("base", "left", "refs")

    def __init__(self, base: int) -> None:
        self.base = base
        self.refs = 0
        self.left = False


class TreeParent:
    """ANON_VMA_TREE_PARENT: the parent's anon_vma with a tag. One object for each anon_vma, so that equal words are
    the same object."""

    __slots__ = ("parent",)

    def __init__(self, parent: AnonVma) -> None:
        self.parent = parent


def _base(vma: Vma) -> int:
    return vma.vm_start - (vma.vm_pgoff << PAGE_SHIFT)


class AnonVmaLazyDesign(AnonVmaDesign):
    """The series.

    Fields used in a VMA besides anon_vma: `reserved1` the root that it holds (also after an upgrade, since folios may
    still name it), `reserved2` the :class:`LazyRoot` of a root.
    """

    name = "anon_vma_lazy"

    # --- the group of a root

    def _hold(self, vma: Vma, root: Vma) -> None:
        vma.reserved1 = root
        root.reserved2.refs += 1

    def _drop(self, vma: Vma) -> None:
        """`vma` leaves its group; the root goes with the last."""
        root: Vma | None = vma.reserved1
        if root is None:
            return
        vma.reserved1 = None
        lazy: LazyRoot = root.reserved2
        lazy.refs -= 1
        if not lazy.refs:
            root.reserved2 = None
            if lazy.left:
                self._vmas.free(root)

    def _upgrade(self, vma: Vma) -> None:
        """Give `vma`, and with it all VMAs of its mm with the same word, a regular anon_vma.

        All at once: a large folio may span several of them, and the first of its pages that is shared or moved makes
        the whole folio name the new anon_vma.
        """
        word = vma.anon_vma
        if not isinstance(word, Vma | TreeParent):
            return
        anon_vma = self._anon_vma_alloc()
        if isinstance(word, TreeParent):
            parent = word.parent
            anon_vma.parent = parent
            anon_vma.root = parent.root
            anon_vma.root.refcount += 1
            parent.num_children += 1
        else:
            anon_vma.num_children += 1
        with self.kernel.locks.anon_vma_write(anon_vma):
            for member in vma.vm_mm.vmas if self._has_siblings(word) else (vma,):
                if member.anon_vma is word:
                    if isinstance(word, TreeParent):
                        word.parent.num_active_vmas -= 1
                    self._link(member, anon_vma)
                    member.anon_vma = anon_vma
                    anon_vma.num_active_vmas += 1

    @staticmethod
    def _has_siblings(word: Vma | TreeParent) -> bool:
        return isinstance(word, TreeParent) or word.reserved2.refs > 1

    def owner(self, vma: Vma) -> AnonVma | None:
        word = vma.anon_vma
        if isinstance(word, TreeParent):
            return word.parent
        return word if isinstance(word, AnonVma) else None

    def _singular(self, vma: Vma) -> bool:
        word = vma.anon_vma
        return isinstance(word, Vma) or (isinstance(word, AnonVma) and len(vma.anon_vma_chain) == 1)

    # --- hook 1

    def anon_vma_prepare(self, vma: Vma) -> None:
        """Mark the VMA lazy, which allocates nothing: as a root of its own, or with the root of a neighbour that it may
        merge with one day. Next to a regular anon_vma, or where an older group still needs this VMA as its root, do as
        mainline does."""
        word = self._find_mergeable(vma)
        if isinstance(word, Vma):
            vma.anon_vma = word
            self._hold(vma, word)
        elif word is not None or vma.reserved2 is not None:
            super().anon_vma_prepare(vma)
        else:
            vma.reserved2 = LazyRoot(_base(vma))
            vma.anon_vma = vma
            self._hold(vma, vma)

    # --- hook 2

    def folio_set_anon(self, folio: Folio, vma: Vma, address: int, exclusive: bool) -> None:
        """A folio names the root VMA, the parent's anon_vma or the VMA's own, as the VMA's word does."""
        word = vma.anon_vma
        if isinstance(word, Vma):
            folio.mapping = word
        else:
            anon_vma = word.parent if isinstance(word, TreeParent) else word
            folio.mapping = anon_vma if exclusive else anon_vma.root
        folio.index = vma.vm_pgoff + ((address - vma.vm_start) >> PAGE_SHIFT)

    def folio_move_anon_rmap(self, folio: Folio, vma: Vma) -> None:
        word = vma.anon_vma
        folio.mapping = word.parent if isinstance(word, TreeParent) else word

    # --- hook 3

    def rmap_walk_anon(self, folio: Folio) -> Iterator[tuple[Vma, int]]:
        """A lazy folio: the VMAs of the root's mm at the address that base and index give, each under its VMA lock."""
        root = folio.mapping
        if not isinstance(root, Vma):
            yield from super().rmap_walk_anon(folio)
            return
        base = root.reserved2.base
        start = base + (folio.index << PAGE_SHIFT)
        for vma in root.vm_mm.vmas_in(start, start + (folio.nr_pages << PAGE_SHIFT)):
            if vma.reserved1 is root:
                with self.kernel.locks.vma_read(vma):
                    address = vma_address(vma, folio.index, folio.nr_pages)
                    if address is not None:
                        yield vma, address

    # --- hook 4

    def folio_get_anon_vma(self, folio: Folio) -> Any:
        """Pins the root VMA (vma_get), or the anon_vma."""
        root = folio.mapping
        if not isinstance(root, Vma):
            return super().folio_get_anon_vma(folio)
        if not folio.mapcount:
            return None
        root.reserved2.refs += 1
        return root

    def put_anon_vma(self, pinned: Any) -> None:
        if isinstance(pinned, Vma):
            lazy: LazyRoot = pinned.reserved2
            lazy.refs -= 1
            if not lazy.refs:
                pinned.reserved2 = None
                if lazy.left:
                    self._vmas.free(pinned)
            return
        super().put_anon_vma(pinned)

    # --- hook 5

    def anon_vma_fork(self, vma: Vma, pvma: Vma) -> None:
        """The parent's VMA is upgraded; the child's is linked with its anon_vmas and gets none of its own."""
        if pvma.anon_vma is None:
            return
        self._upgrade(pvma)
        vma.anon_vma = None
        self.anon_vma_clone(vma, pvma)
        if vma.anon_vma is not None:
            return
        parent: AnonVma = pvma.anon_vma
        vma.anon_vma = self._tree_parent(parent)
        parent.num_active_vmas += 1

    @staticmethod
    def _tree_parent(parent: AnonVma) -> TreeParent:
        if parent.tagged is None:
            parent.tagged = TreeParent(parent)
        return parent.tagged  # type: ignore[no-any-return]

    # --- hook 6

    def try_dup_anon_rmap(self, folio: Folio, vma: Vma, pvma: Vma) -> None:
        """A lazy folio is about to be shared: from now on it names the anon_vma that its VMA was upgraded to."""
        if isinstance(folio.mapping, Vma):
            folio.mapping = pvma.anon_vma

    # --- hook 7

    def anon_vma_clone(self, dst: Vma, src: Vma) -> None:
        """A part split off a lazy VMA joins its group. A copy that mremap makes lies at another base: it does not."""
        root = src.reserved1
        if root is not None and dst.vm_mm is src.vm_mm and _base(dst) == root.reserved2.base:
            self._hold(dst, root)
        super().anon_vma_clone(dst, src)

    def dup_anon_vma(self, dst: Vma, src: Vma) -> None:
        """`dst` grows over folios of `src`, which may name a root that only `src` holds."""
        had_anon_vma = dst.anon_vma is not None
        super().dup_anon_vma(dst, src)
        root = src.reserved1
        if had_anon_vma and dst.reserved1 is None and root is not None and _base(dst) == root.reserved2.base:
            self._hold(dst, root)

    def unlink_anon_vmas(self, vma: Vma) -> None:
        super().unlink_anon_vmas(vma)
        vma.anon_vma = None
        self._drop(vma)

    def anon_vma_lock(self, vma: Vma) -> AbstractContextManager[Any]:
        owner = self.owner(vma)
        return nullcontext() if owner is None else self.kernel.locks.anon_vma_write(owner)

    # --- hook 8

    def vm_area_free(self, vma: Vma) -> None:
        """A root that others hold stays until they are gone."""
        if vma.reserved2 is not None:
            vma.reserved2.left = True
            return
        super().vm_area_free(vma)

    # --- hook 9

    def copy_vma(self, vma: Vma, pgoff_kept: bool) -> None:
        """The pages are about to leave the base of their group, where a walk from the root would look for them."""
        if isinstance(vma.anon_vma, Vma):
            self._upgrade(vma)

    def move_page_tables(self, folio: Folio, vma: Vma, new_vma: Vma) -> None:
        """A moved lazy folio names the anon_vma that its VMA was upgraded to. The stack of an execve moves as a whole,
        root and all: the base follows."""
        if not isinstance(folio.mapping, Vma):
            return
        if new_vma is vma and vma.reserved2 is not None:
            vma.reserved2.base = _base(vma)
        else:
            folio.mapping = new_vma.anon_vma

    # --- figures

    def vma_fields(self) -> dict[str, int]:
        """Bytes that the design adds to vm_area_struct, by field."""
        return {"lazy root": 8, "vm_rcuref": 8, "base of the group": 8}
