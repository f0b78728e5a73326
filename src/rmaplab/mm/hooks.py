# SPDX-License-Identifier: GPL-2.0-only
"""The seam between mm and a design: the nine hooks of the seed mail, and nothing else.

A design implements :class:`Hooks`. What it keeps in ``vma.anon_vma``, ``vma.anon_vma_chain``, the reserved
fields of the VMA and in ``folio.mapping`` is its own business: mm passes these along and only asks of
``vma.anon_vma`` whether it is None ("never faulted": vma_needs_copy and mprotect's accounting rely on it).
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from rmaplab.mm.folio import Folio
    from rmaplab.mm.kernel import Kernel
    from rmaplab.mm.mm import Mm
    from rmaplab.mm.vma import Vma

__all__ = ["EXTRA_HOOKS", "HOOKS", "ForkRefused", "Hook", "Hooks", "WalkContended"]


class ForkRefused(Exception):
    """A design does not let a process fork: the call fails with -EAGAIN and has changed nothing."""


class WalkContended(Exception):
    """A walk, or hook 4, could not get a lock that it must not wait for (rwc->contended). A walk has visited some
    places or none; hook 4 holds nothing.

    mm: the address space at which somebody else is working
    """

    def __init__(self, mm: "Mm | None" = None) -> None:
        super().__init__()
        self.mm = mm


@dataclass(frozen=True, slots=True)
class Hook:
    """One place in the kernel where a design decides."""

    number: int
    functions: str  # kernel functions, as the mail names them
    methods: tuple[str, ...]  # methods of Hooks that stand for it


HOOKS: tuple[Hook, ...] = (
    Hook(1, "__vmf_anon_prepare", ("anon_vma_prepare",)),
    Hook(2, "__folio_set_anon, folio_move_anon_rmap", ("folio_set_anon", "folio_move_anon_rmap")),
    Hook(3, "rmap_walk_anon", ("rmap_walk_anon",)),
    Hook(4, "folio_get_anon_vma, put_anon_vma", ("folio_get_anon_vma", "put_anon_vma")),
    Hook(5, "anon_vma_fork", ("anon_vma_fork",)),
    Hook(6, "try_dup_anon_rmap", ("try_dup_anon_rmap",)),
    Hook(
        7,
        "anon_vma_clone",
        (
            "anon_vma_clone",
            "unlink_anon_vmas",
            "dup_anon_vma",
            "is_mergeable_anon_vma",
            "same_anon_vma",
            "anon_vma_lock",
        ),
    ),
    Hook(8, "vm_area_alloc, vm_area_dup, vm_area_free", ("vm_area_alloc", "vm_area_dup", "vm_area_free")),
    Hook(9, "mremap: copy_vma, move_page_tables", ("copy_vma", "move_page_tables")),
)

EXTRA_HOOKS: tuple[Hook, ...] = (
    Hook(10, "do_swap_page: folio_add_anon_rmap_ptes", ("folio_swapped_in", "swapin_needs_copy")),
    Hook(
        11, "KSM: stable_tree_append, rmap_walk_ksm, remove_rmap_item_from_tree", ("ksm_pin", "ksm_walk", "ksm_unpin")
    ),
    Hook(12, "collect_procs_anon", ("collect_procs_anon",)),
    Hook(13, "collapse_huge_page", ("collapse_lock",)),
    Hook(14, "folio_remove_rmap_ptes", ("folio_removed",)),
    Hook(15, "mm lifetime: mmdrop, exit_mmap", ("mm_gone",)),
    Hook(16, "split_huge_page_to_list_to_order: anon_vma_lock_write", ("split_lock",)),
    Hook(17, "copy_nonpresent_pte: a migration entry is copied by fork", ("copy_migration_entry",)),
)
"""Places beyond the nine of the mail that some design needs; one that needs none does there as mainline."""


class Hooks(Protocol):
    """What a design answers. Unless noted the caller holds the mmap lock for writing."""

    name: str
    wants_removals: bool
    """Is hook 14 to be called?"""
    wants_migration_entries: bool
    """Is hook 17 to be called?"""

    def attach(self, kernel: "Kernel") -> None:
        """Called once: create the design's slab caches in `kernel`."""

    # Hook 1
    def anon_vma_prepare(self, vma: "Vma") -> None:
        """First anonymous fault of `vma` (``vma.anon_vma`` is None). Mmap lock held for reading at least."""

    # Hook 2
    def folio_set_anon(self, folio: "Folio", vma: "Vma", address: int, exclusive: bool) -> None:
        """A new anonymous folio is mapped at `address`: set its mapping and index."""

    def folio_move_anon_rmap(self, folio: "Folio", vma: "Vma") -> None:
        """`vma` turned out to be the only one that maps `folio` (write fault, swap-in)."""

    # Hook 3
    def rmap_walk_anon(self, folio: "Folio", pinned: Any = None, locked: bool = False) -> Iterator[tuple["Vma", int]]:
        """(vma, address) of every place where `folio`'s first page, or what of it overlaps the VMA, may be mapped.

        A reference of the folio is held, and its lock, but not by folio_referenced and its kin. What the mapping names
        may go away meanwhile, unless the caller holds what hook 4 `pinned` (remove_migration_ptes); without, nothing is
        visited once the folio is no longer mapped (folio_lock_anon_vma_read). locked: the lock of hook 16 is held
        already (TTU_RMAP_LOCKED).
        """

    # Hook 4
    def folio_get_anon_vma(self, folio: "Folio") -> Any:
        """Pin what ``folio.mapping`` names; None if the folio is not mapped. May raise WalkContended."""

    def put_anon_vma(self, pinned: Any) -> None:
        """Drop what :meth:`folio_get_anon_vma` pinned."""

    # Hook 5
    def anon_vma_fork(self, vma: "Vma", pvma: "Vma") -> None:
        """`vma` of a child was copied from `pvma` of its parent."""

    # Hook 6
    def try_dup_anon_rmap(self, folio: "Folio", vma: "Vma", pvma: "Vma") -> bool | None:
        """Fork maps `folio` of `pvma` in the child's `vma` too; False: it must copy the page instead, as it does with
        one that may be pinned. Both page-table locks held."""

    # Hook 7
    def anon_vma_clone(self, dst: "Vma", src: "Vma") -> None:
        """`dst` was split off `src`, or is its moved copy: link it as `src` is."""

    def unlink_anon_vmas(self, vma: "Vma") -> None:
        """`vma` goes away: unlink it, free what became unused."""

    def dup_anon_vma(self, dst: "Vma", src: "Vma") -> None:
        """`dst` grows over pages of `src` (a merge)."""

    def is_mergeable_anon_vma(
        self, target: "Vma", anon_vma: Any, source: "Vma | None", copied_from: "Vma | None"
    ) -> bool:
        """May `target` grow over a range whose anon_vma is `anon_vma`, of the existing VMA `source`, or of a copy of
        `copied_from`?"""

    def same_anon_vma(self, one: "Vma", other: "Vma") -> bool:
        """May `one` and `other`, either perhaps unfaulted, become one VMA?"""

    def anon_vma_lock(self, vma: "Vma") -> AbstractContextManager[Any]:
        """What vma_prepare locks while the range of `vma` changes."""

    # Hook 8
    def vm_area_alloc(self, mm: "Mm") -> "Vma":
        """A new VMA."""

    def vm_area_dup(self, orig: "Vma", mm: "Mm") -> "Vma":
        """A copy of `orig`, for a split (same mm), a move or a fork."""

    def vm_area_free(self, vma: "Vma") -> None:
        """`vma` has left its tree and is unlinked."""

    # Hook 9
    def copy_vma(self, vma: "Vma", pgoff_kept: bool) -> bool | None:
        """mremap is about to move pages out of `vma` (before it looks for a VMA to merge with). True: entries must move
        under what anon_vma_lock takes, since the order of the design's walks is not mainline's (need_rmap_locks)."""

    def move_page_tables(self, folio: "Folio", vma: "Vma", new_vma: "Vma") -> None:
        """mremap moves an entry that maps `folio` from `vma` to `new_vma`. Both page-table locks held."""

    # Hook 10
    def folio_swapped_in(self, folio: "Folio", vma: "Vma", address: int, exclusive: bool) -> None:
        """A folio comes back from the swap cache: `vma` maps it at `address`. Folio lock held."""

    def swapin_needs_copy(self, folio: "Folio", vma: "Vma") -> bool:
        """`vma` is about to map `folio` of the swap cache: must it get a copy instead (ksm_might_need_to_copy)?"""

    # Hook 11
    def ksm_pin(self, vma: "Vma") -> Any:
        """KSM remembers, for a page that it merged, where it was mapped: pin what `vma.anon_vma` names."""

    def ksm_walk(self, pinned: Any, address: int) -> Iterator[tuple["Vma", int]]:
        """(vma, address) of every place where a page merged at `address` of the pinned object may be mapped."""

    def ksm_unpin(self, pinned: Any) -> None:
        """KSM forgets the page."""

    # Hook 12
    def collect_procs_anon(self, folio: "Folio") -> Iterator[tuple["Vma", int]]:
        """As rmap_walk_anon, for memory failure, which walks the interval tree itself."""

    # Hook 13
    def collapse_lock(self, vma: "Vma") -> AbstractContextManager[Any]:
        """What khugepaged locks against walks while it takes the page table of `vma` away."""

    # Hook 14
    def folio_removed(self, folio: "Folio", mm: "Mm", address: int) -> None:
        """The entry of `mm` at `address` that mapped `folio` is gone. Page-table lock held. Only called for a design
        whose `wants_removals` is True."""

    # Hook 15
    def mm_gone(self, mm: "Mm") -> None:
        """`mm` has been torn down (end of exit_mmap)."""

    # Hook 16
    def split_lock(self, pinned: Any) -> AbstractContextManager[Any]:
        """What a folio split locks against walks, other splits and collapse, between hook 4's get and put."""

    # Hook 17
    def copy_migration_entry(self, folio: "Folio", vma: "Vma", pvma: "Vma") -> None:
        """Fork copies an entry of `pvma` under which `folio` is under migration: the child's `vma` will map what it
        becomes. Hook 6 is not asked. Both page-table locks held."""
