# SPDX-License-Identifier: GPL-2.0-only
"""Mistakes in the lazy designs, in their repaired forms."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rmaplab.check.model_locks import CheckedLocks
from rmaplab.check.mutant import Mutant, Patch, patch, set_to, without, without_hook
from rmaplab.designs.anon_vma_lazy import TreeParent
from rmaplab.mm.folio import Folio
from rmaplab.mm.vma import Vma

__all__ = ["LAZY"]


def _not_held(design: Any) -> None:
    @contextmanager
    def mapped(folio: Folio, pinned: Any = None) -> Iterator[Any]:
        with design.kernel.locks.rcu_read():
            named = folio.mapping
            found = isinstance(named, design.named) and (pinned is not None or folio.mapcount > 0)
        yield named if found else None

    design._mapped = mapped


def _without_attached(original: Any) -> Any:
    def vma_start_read(self: CheckedLocks, vma: Vma) -> Any:
        return self._try(self._lock("vma", vma), False)

    return vma_start_read


def _upgrade_one(design: Any) -> None:
    def upgrade(vma: Vma) -> None:
        if design.lazy_root(vma) is not None:
            design.link_all([vma], design._new_root())

    design.upgrade = upgrade


def _not_counted(design: Any) -> None:
    original = design.anon_vma_fork

    def anon_vma_fork(vma: Vma, pvma: Vma) -> None:
        original(vma, pvma)
        if isinstance(vma.anon_vma, TreeParent):
            vma.anon_vma.parent.num_active_vmas -= 1

    design.anon_vma_fork = anon_vma_fork


LAZY: tuple[Mutant, ...] = (
    Mutant(
        "lazy-walk-unlocked",
        "gki_locked",
        "the walk does not lock the VMAs that it looks at (hook 3)",
        "it reads the range of a VMA that munmap may change; seen without munmap",
        ((0, ""),),
        ("referenced-munmap", "reclaim-fork"),
        without("rmap_walk_anon", "vma_start_read"),
    ),
    Mutant(
        "lazy-mark-unlocked",
        "gki_locked",
        "a VMA is marked lazy without the page_table_lock (hook 1)",
        "one fault has made it a root and not counted it yet; so does the other; it is counted once too often",
        ((0, "write Vma #2"), (1, ""), (0, "")),
        ("faults-same-vma",),
        without("anon_vma_prepare", "page_table_lock"),
    ),
    Mutant(
        "lazy-attached-unchecked",
        "gki_locked",
        "a walk that has got the lock of a VMA does not ask if it is still in its tree (lock_vma_under_rcu)",
        "the walk has found the VMA; munmap takes it out of the tree, and lets its lock go with the downgrade; the "
        "walk locks it and goes to its page tables, which nothing keeps",
        ((0, "trylock vma"), (1, "read Mm in unmap_page_range"), (0, "")),
        ("referenced-munmap", "migrate-munmap"),
        patches=(Patch("rmaplab.check.model_locks", "CheckedLocks.vma_start_read", _without_attached),),
    ),
    Mutant(
        "lazy-root-not-held",
        "gki_locked",
        "a walk does not hold the root VMA (hook 8)",
        "the walk reads folio->mapping; munmap frees the VMA; the walk reads its LazyRoot",
        ((0, "read Vma"), (1, "read Mm in vm_area_free"), (0, "")),
        ("referenced-munmap", "migrate-munmap"),
        _not_held,
    ),
    Mutant(
        "lazy-root-pins-no-mm",
        "gki_locked",
        "a root VMA does not hold its mm_struct",
        "the walk holds the root; exit frees the mm; the walk looks into its VMA tree",
        ((0, "read the VMA tree"), (1, ""), (0, "")),
        ("referenced-exit", "reclaim-exit"),
        set_to("root_pins_mm", False),
    ),
    Mutant(
        "lazy-upgrade-one",
        "gki_locked",
        "an upgrade links one VMA of the group, not all (hook 9)",
        "half of a large folio moves, and all of it names an anon_vma that only that half is linked with: a walk does "
        "not come to the other half",
        ((1, "change the VMA tree #2"), (0, "")),
        ("huge-mremap",),
        _upgrade_one,
    ),
    Mutant(
        "lazy-no-hook-6",
        "gki_locked",
        "fork shares folios that name the root VMA",
        "fork; a walk from the root does not come to the child",
        ((1, ""), (0, "")),
        ("reclaim-fork", "migrate-fork"),
        without_hook("try_dup_anon_rmap"),
    ),
    Mutant(
        "lazy-no-hook-9",
        "gki_locked",
        "mremap does not upgrade",
        "mremap; a walk looks at base + index, where the page lay before",
        ((1, "lock ptl #2"), (0, "")),
        ("reclaim-mremap-up", "migrate-mremap-down"),
        without_hook("copy_vma", "move_page_tables"),
    ),
    Mutant(
        "lazy-no-hook-10",
        "gki_locked",
        "what comes back from the swap cache still names the root VMA",
        "both processes map the page again; a walk from the root does not come to the child",
        ((0, ""), (1, "")),
        ("swapin-both",),
        without_hook("folio_swapped_in"),
    ),
    Mutant(
        "lazy-pin-unlocked",
        "gki_locked",
        "hook 4 does not hold the locks of the VMAs",
        "migration's walk has seen that folio->mapping names a VMA; fork upgrades it, and the walk takes the anon_vma "
        "for a VMA. Or, later: fork copies a migration entry, and migration does not come to the child",
        ((0, "read in rmap_walk #3"), (1, "change in copy_pte_range"), (0, "")),
        ("migrate-fork",),
        set_to("pin_locks_vmas", False),
    ),
    Mutant(
        "fork-vma-unlocked",
        "gki_locked",
        "fork does not lock the parent's VMAs for writing",
        "migration has locked the only VMA, in vain: fork copies the entry, and migration's walk, which relies on that "
        "lock, does not come to the child",
        ((0, "trylock folio"), (1, "unlock mmap_lock"), (0, "")),
        ("migrate-fork",),
        patches=(patch("fork", "_dup_mmap", "vma_start_write"),),
    ),
    Mutant(
        "mm-at-once",
        "gki_mm_locked",
        "an mm_struct is freed without a grace period (hook 15)",
        "the walk reads folio->mapping; exit frees the mm; the walk takes a reference",
        ((0, "read Mm"), (1, ""), (0, "")),
        ("referenced-exit", "migrate-exit"),
        set_to("mm_by_rcu", False),
    ),
    Mutant(
        "mm-not-held",
        "gki_mm_locked",
        "a walk holds no reference of the mm (hook 4)",
        "the walk reads folio->mapping and leaves the RCU section; exit frees the mm; the walk looks into its VMA tree",
        ((0, "rcu_read_lock"), (1, ""), (0, "")),
        ("referenced-exit", "migrate-exit"),
        _not_held,
    ),
    Mutant(
        "mm-no-hook-9",
        "gki_mm_locked",
        "mremap does not upgrade",
        "mremap; a walk looks at the address that the index is",
        ((1, "lock ptl #2"), (0, "")),
        ("reclaim-mremap-up",),
        without_hook("copy_vma", "move_page_tables"),
    ),
    Mutant(
        "tree-parent-not-counted",
        "anon_vma_lazy_locked",
        "a TREE_PARENT VMA is not counted in num_active_vmas of its parent's anon_vma",
        "fork; when all exit, the count is too low",
        ((0, ""), (1, "")),
        ("reclaim-grandchild", "cow-fork"),
        _not_counted,
    ),
)
