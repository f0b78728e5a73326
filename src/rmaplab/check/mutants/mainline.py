# SPDX-License-Identifier: GPL-2.0-only
"""Mistakes in mainline: in its hooks, and in mm."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from rmaplab.check.mutant import Mutant, Patch, patch, without
from rmaplab.check.mutants.historic import trylock_mapped
from rmaplab.designs.anon_vma import AnonVma, AnonVmaChain
from rmaplab.mm.folio import Folio
from rmaplab.mm.vma import Vma

__all__ = ["MAINLINE"]


def _no_inc_not_zero(design: Any) -> None:
    def folio_get_anon_vma(folio: Folio) -> Any:
        with design.kernel.locks.rcu_read():
            anon_vma = folio.mapping
            if not folio.mapcount or not isinstance(anon_vma, AnonVma):
                return None
            anon_vma.refcount += 1
            if folio.mapcount:
                return anon_vma
        design._put(anon_vma)
        return None

    design.folio_get_anon_vma = folio_get_anon_vma


def _no_pin(design: Any) -> None:
    def folio_get_anon_vma(folio: Folio) -> Any:
        return folio.mapping if folio.mapcount else None

    def put_anon_vma(pinned: Any) -> None:
        pass

    design.folio_get_anon_vma, design.put_anon_vma = folio_get_anon_vma, put_anon_vma


def _second_fault_again(design: Any) -> None:
    def anon_vma_prepare(vma: Vma) -> None:
        locks = design.kernel.locks
        avc = design._avcs.alloc(AnonVmaChain(vma, None))  # type: ignore[arg-type]
        anon_vma = design._find_mergeable(vma) or design._new_root()
        with locks.anon_vma_write(anon_vma), locks.page_table_lock(vma.vm_mm):
            vma.anon_vma = avc.anon_vma = anon_vma
            design._chain(vma, avc)
            anon_vma.num_active_vmas += 1

    design.anon_vma_prepare = anon_vma_prepare


def _child_first(design: Any) -> None:
    original = design._interval_tree

    def interval_tree(folio: Folio, anon_vma: AnonVma | None) -> Iterator[tuple[Vma, int]]:
        yield from reversed(list(original(folio, anon_vma)))

    design._interval_tree = interval_tree


def _no_split_lock(design: Any) -> None:
    design.split_lock = lambda pinned: nullcontext()


def _recheck_late(design: Any) -> None:
    @contextmanager
    def read(folio: Folio) -> Iterator[AnonVma | None]:
        anon_vma, guard = trylock_mapped(design, folio)
        with nullcontext() if guard is None else guard:
            yield anon_vma if guard is not None and folio.mapcount else None

    design._folio_lock_anon_vma_read = read


def _any_entry(original: Any) -> Any:
    def table_if_same(mm: Any, address: int, entry: int | None) -> Any:
        table = mm.pgd.get(address >> 21)
        return table if isinstance(table, dict) else None

    return table_if_same


def _reuse_if_mapped_once(original: Any) -> Any:
    def can_reuse(kernel: Any, folio: Folio, vma: Vma) -> bool:
        if folio.mapcount != 1:
            return False
        kernel.hooks.folio_move_anon_rmap(folio, vma)
        return True

    return can_reuse


def _tables_first(original: Any) -> Any:
    def free_pgtables(mm: Any, vmas: Any) -> None:
        for vma in vmas:
            mm.kernel.locks.free_pgtables(mm, vma.vm_start, vma.vm_end)
        for vma in vmas:
            mm.kernel.locks.vma_start_write(vma)
            mm.kernel.hooks.unlink_anon_vmas(vma)

    return free_pgtables


MAINLINE: tuple[Mutant, ...] = (
    Mutant(
        "walk-unlocked",
        "anon_vma",
        "rmap_walk_anon does not lock the anon_vma (hook 3)",
        "the walk reads the interval tree and the ranges of its VMAs while munmap may unlink and free them; that no "
        "lock excludes that is seen without munmap",
        ((0, ""),),
        ("referenced-munmap", "reclaim-fork", "migrate-fork"),
        without("rmap_walk_anon", "anon_vma_read", "anon_vma_trylock_read"),
    ),
    Mutant(
        "get-freed",
        "anon_vma",
        "folio_get_anon_vma takes a reference though the count may be 0 (hook 4)",
        "migration reads folio->mapping; exit drops the last reference; migration takes and drops one more",
        ((0, "read AnonVma"), (1, "free page tables"), (0, "")),
        ("migrate-exit", "migrate-munmap"),
        _no_inc_not_zero,
    ),
    Mutant(
        "no-pin",
        "anon_vma",
        "migration holds no reference of the anon_vma (hook 4)",
        "migration has read folio->mapping; exit frees the anon_vma, and the walk locks it",
        ((0, "read in rmap_walk"), (1, "free page tables"), (0, "")),
        ("migrate-exit", "migrate-munmap"),
        _no_pin,
    ),
    Mutant(
        "prepare-again",
        "anon_vma",
        "anon_vma_prepare does not look again under the lock if another fault was first (hook 1)",
        "both faults link the VMA, each with an anon_vma of its own; that of the first counts it to the end",
        ((0, "trylock mmap_lock"), (1, ""), (0, "")),
        ("faults-same-vma",),
        _second_fault_again,
    ),
    Mutant(
        "prepare-unlocked",
        "anon_vma",
        "anon_vma_prepare sets vma->anon_vma without the page_table_lock (hook 1)",
        "both faults find none set, and link the VMA at once",
        ((0, "write Vma"), (1, "unlock anon_vma"), (0, "")),
        ("faults-same-vma",),
        without("anon_vma_prepare", "page_table_lock"),
    ),
    Mutant(
        "unlink-unlocked",
        "anon_vma",
        "unlink_anon_vmas does not lock the anon_vma (hook 7)",
        "munmap unlinks from the interval tree that the walk reads",
        ((0, "read in page_vma_mapped_walk"), (1, "")),
        ("referenced-munmap", "reclaim-exit"),
        without("unlink_anon_vmas", "anon_vma_write"),
    ),
    Mutant(
        "recheck-late",
        "anon_vma",
        "the walk asks whether the folio is still mapped after the RCU section, in which alone the lock's memory stays",
        "the walk reads folio->mapping; munmap frees the anon_vma; the walk locks it still in the RCU section, and "
        "lets go of it after",
        ((0, "trylock anon_vma"), (1, "free page tables"), (0, "")),
        ("referenced-munmap",),
        _recheck_late,
    ),
    Mutant(
        "child-first",
        "anon_vma",
        "the walk visits a child's VMA before its parent's (hook 3)",
        "migration takes its entries out: it looks at the child, fork copies the migration entry, migration replaces "
        "the parent's: the copy stays",
        ((0, "lock anon_vma #2"), (1, "lock ptl"), (0, "lock ptl"), (1, ""), (0, "")),
        ("migrate-fork",),
        _child_first,
    ),
    Mutant(
        "split-unlocked",
        "anon_vma",
        "a folio split does not lock the anon_vma (hook 16)",
        "its walks take none either, and read the interval tree and the ranges of its VMAs while fork may link the "
        "child; seen without fork",
        ((0, ""),),
        ("huge-split-fork",),
        _no_split_lock,
    ),
    Mutant(
        "clone-unlocked",
        "anon_vma",
        "anon_vma_clone does not lock the anon_vma (hooks 5 and 7)",
        "fork links the child while a walk reads the interval tree",
        ((0, "read in page_vma_mapped_walk"), (1, "")),
        ("reclaim-fork", "migrate-grandchild"),
        without("anon_vma_clone", "anon_vma_write"),
    ),
    Mutant(
        "pte-not-same",
        "anon_vma",
        "a fault does not look again under the page-table lock if the entry is the same",
        "both threads map a page there, and the first page is lost",
        ((1, "read in do_anonymous_page"), (0, ""), (1, "")),
        ("faults-same-page",),
        patches=(Patch("rmaplab.mm.fault_steps", "_table_if_same", _any_entry),),
    ),
    Mutant(
        "reuse-mapped-once",
        "anon_vma",
        "a write fault reuses a page that is mapped once, whoever else holds it",
        "A has it back from the swap cache and writes to it, B takes it from there",
        ((0, ""), (1, "")),
        ("swapin-write",),
        patches=(Patch("rmaplab.mm.fault_steps", "_can_reuse", _reuse_if_mapped_once),),
    ),
    Mutant(
        "tables-before-unlink",
        "anon_vma",
        "munmap frees the page tables before it hides the VMA from walks",
        "the walk has found the VMA and is in its page table when that is freed",
        ((0, "lock ptl"), (1, "")),
        ("referenced-munmap", "migrate-munmap"),
        patches=(Patch("rmaplab.mm.mmap", "free_pgtables", _tables_first),),
    ),
    Mutant(
        "move-without-ptl",
        "anon_vma",
        "mremap does not lock the page table that it takes entries from",
        "the entry goes while a walk may look at it; that no lock excludes that is seen without a walk",
        ((1, ""),),
        ("reclaim-mremap-up", "migrate-mremap-up"),
        patches=(patch("mremap", "move_page_tables", "page_table"),),
    ),
)
