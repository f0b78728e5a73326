# SPDX-License-Identifier: GPL-2.0-only
"""The mutants: bugs that Linux had, and mistakes in each hook and each lock of the designs.

Each tells how it goes wrong, in words and as a schedule (mutant_schedule.py), both derived by hand: a CPU that the
story does not need makes no step, one that it needs stops as early as it can. tests/check/test_mutants.py executes
these, and holds the checker to finding all mutants with counterexamples that are not longer.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from rmaplab.check.mutant import Change, Mutant, Patch, patch, without
from rmaplab.designs.anon_vma import AnonVma, AnonVmaChain
from rmaplab.designs.anon_vma_lazy import TreeParent
from rmaplab.designs.cow_tree import CowContext
from rmaplab.mm.folio import Folio
from rmaplab.mm.mm import Mm
from rmaplab.mm.slab import AllocationFailure
from rmaplab.mm.vma import Vma

__all__ = ["MUTANTS", "mutants"]


# --- bugs that Linux had


def _degree(design: Any) -> None:
    original = design.anon_vma_clone

    def anon_vma_clone(dst: Vma, src: Vma) -> None:
        original(dst, src)
        if dst.anon_vma is not None or src.anon_vma is None:
            return
        for avc in dst.anon_vma_chain:
            anon_vma = avc.anon_vma
            with design.kernel.locks.anon_vma_write(anon_vma):
                if anon_vma is not src.anon_vma and anon_vma.num_children + anon_vma.num_active_vmas < 2:
                    dst.anon_vma = anon_vma
                    anon_vma.num_active_vmas += 1
                    return

    design.anon_vma_clone = anon_vma_clone


def _not_cleared(design: Any) -> None:
    original = design.dup_anon_vma

    def dup_anon_vma(dst: Vma, src: Vma) -> None:
        unfaulted = dst.anon_vma is None
        try:
            original(dst, src)
        except AllocationFailure:
            if unfaulted:
                dst.anon_vma = src.anon_vma
            raise

    design.dup_anon_vma = dup_anon_vma


def _trylock_mapped(design: Any, folio: Folio) -> tuple[Any, Any]:
    """What a mapped folio names, and its lock, None if it could not be had: with the RCU section, no more is asked"""
    locks = design.kernel.locks
    with locks.rcu_read():
        anon_vma = folio.mapping
        if isinstance(anon_vma, AnonVma) and folio.mapcount:
            return anon_vma, locks.anon_vma_trylock_read(anon_vma)
    return anon_vma, None


def _no_recheck_under_lock(design: Any) -> None:
    """As page_lock_anon_vma was then: in one RCU section from the look at the folio to the end of the walk."""

    @contextmanager
    def read(folio: Folio) -> Iterator[AnonVma | None]:
        with design.kernel.locks.rcu_read():
            anon_vma, guard = _trylock_mapped(design, folio)
            with nullcontext() if guard is None else guard:
                yield anon_vma if guard is not None else None

    design._folio_lock_anon_vma_read = read


def _published_unlocked(design: Any) -> None:
    without("anon_vma_prepare", "anon_vma_write")(design)
    _no_recheck_under_lock(design)


def _root_first(design: Any) -> None:
    fork, unlink = design.anon_vma_fork, design.unlink_anon_vmas

    def anon_vma_fork(vma: Vma, pvma: Vma) -> None:
        fork(vma, pvma)
        anon_vma = vma.anon_vma
        if anon_vma is not None and anon_vma.root is not anon_vma and anon_vma.parent is pvma.anon_vma:
            anon_vma.root.refcount -= 1  # does not hold its root

    def put(anon_vma: AnonVma) -> None:
        anon_vma.refcount -= 1
        if not anon_vma.refcount:
            design.kernel.locks.anon_vma_drain(anon_vma)
            design._anon_vmas.free(anon_vma)

    def unlink_anon_vmas(vma: Vma) -> None:
        if vma.anon_vma_chain:
            vma.anon_vma_chain = list(reversed(vma.anon_vma_chain))
        unlink(vma)

    design.anon_vma_fork, design._put, design.unlink_anon_vmas = anon_vma_fork, put, unlink_anon_vmas


def _no_rmap_locks(original: Any) -> Any:
    def copy_vma(*args: Any) -> tuple[Vma, bool]:
        return original(*args)[0], False

    return copy_vma


def _published_unfinished(design: Any) -> None:
    """Under sequential consistency a missing release barrier is the two stores in the other order."""

    def anon_vma_prepare(vma: Vma) -> None:
        locks = design.kernel.locks
        avc = design._avcs.alloc(AnonVmaChain(vma, None))  # type: ignore[arg-type]
        anon_vma = design._find_mergeable(vma)
        if anon_vma is not None:
            with locks.anon_vma_write(anon_vma), locks.page_table_lock(vma.vm_mm):
                if vma.anon_vma is None:
                    vma.anon_vma = avc.anon_vma = anon_vma
                    design._chain(vma, avc)
                    anon_vma.num_active_vmas += 1
                    return
            design._avcs.free(avc)
            return
        anon_vma = design._new_root()
        with locks.page_table_lock(vma.vm_mm):
            taken = vma.anon_vma is not None
            if not taken:
                avc.anon_vma = anon_vma
                design._chain(vma, avc)
                anon_vma.num_active_vmas += 1
                anon_vma.root = None  # memory as the slab cache hands it out
                vma.anon_vma = anon_vma
                if vma.anon_vma is anon_vma:  # another CPU sees that store before the one below
                    anon_vma.root = anon_vma
        if taken:
            design._put(anon_vma)
            design._avcs.free(avc)

    design.anon_vma_prepare = anon_vma_prepare


# --- mistakes in mainline


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
        anon_vma, guard = _trylock_mapped(design, folio)
        with nullcontext() if guard is None else guard:
            yield anon_vma if guard is not None and folio.mapcount else None

    design._folio_lock_anon_vma_read = read


# --- mistakes in the lazy designs


def _root_not_held(design: Any) -> None:
    @contextmanager
    def mapped_root(folio: Folio, pinned: Any = None) -> Iterator[Vma | None]:
        with design.kernel.locks.rcu_read():
            root = folio.mapping
            mapped = isinstance(root, Vma) and (pinned is not None or folio.mapcount > 0)
        yield root if mapped else None

    design._mapped = mapped_root


def _mm_not_held(design: Any) -> None:
    @contextmanager
    def mapped_mm(folio: Folio, pinned: Any = None) -> Iterator[Any]:
        with design.kernel.locks.rcu_read():
            mm = folio.mapping
            mapped = isinstance(mm, Mm) and (pinned is not None or folio.mapcount > 0)
        yield mm if mapped else None

    design._mapped = mapped_mm


def _upgrade_one(design: Any) -> None:
    def upgrade(vma: Vma) -> None:
        if design.lazy_root(vma) is not None:
            design.link_all([vma], design._new_root())

    design.upgrade = upgrade


def _without_hook(*methods: str) -> Change:
    def change(design: Any) -> None:
        for method in methods:
            setattr(design, method, lambda *args: None)

    return change


def _set(name: str, value: Any) -> Change:
    def change(design: Any) -> None:
        setattr(design, name, value)

    return change


def _not_counted(design: Any) -> None:
    original = design.anon_vma_fork

    def anon_vma_fork(vma: Vma, pvma: Vma) -> None:
        original(vma, pvma)
        if isinstance(vma.anon_vma, TreeParent):
            vma.anon_vma.parent.num_active_vmas -= 1

    design.anon_vma_fork = anon_vma_fork


# --- mistakes in the other designs


def _fork_without_link(design: Any) -> None:
    def anon_vma_fork(vma: Vma, pvma: Vma) -> None:
        if pvma.anon_vma is None:
            return
        vma.anon_vma = None
        context = design.contexts.get(vma.vm_mm)
        if context is None:
            context = design._contexts.alloc(CowContext(vma.vm_mm, pvma.anon_vma.context))
            design.contexts[vma.vm_mm] = context
        design._hold(vma, context)

    design.anon_vma_fork = anon_vma_fork


def _link_at_the_end(original: Any) -> Any:
    def dup_mmap(mm: Any, oldmm: Any) -> None:
        original(mm, oldmm)
        context = mm.kernel.hooks.contexts.get(mm)
        if context is not None:
            with mm.kernel.locks.anon_vma_write(context):
                context.parent.adopt(context)

    return dup_mmap


def _list_unlocked(design: Any) -> None:
    design._list_lock = lambda members: nullcontext()


# --- mistakes in mm


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


MUTANTS: tuple[Mutant, ...] = (
    Mutant(
        "degree",
        "anon_vma",
        "fork reuses an anon_vma whose children and VMAs together are fewer than 2",
        "E's two VMAs get the same anon_vma, of which one lacks a link of the other, and merge: none but the other's "
        "link led to its page, and a walk does not come there any more",
        ((0, "lock ptl"), (1, "")),
        ("degree",),
        _degree,
        historic="2555283eb40d",
    ),
    Mutant(
        "not-cleared",
        "anon_vma",
        "a merge that finds no memory for the links leaves vma->anon_vma set",
        "mprotect fails in anon_vma_clone; the next write needs no anon_vma, and its folio names one that does not "
        "know the VMA",
        ((0, "allocate anon_vma_chain fails"), (0, ""), (1, "")),
        ("fail-merge",),
        _not_cleared,
        historic="3a206a8649f8",
    ),
    Mutant(
        "published-unlocked",
        "anon_vma",
        "a new anon_vma is published without its lock, and a walk does not ask again under it if the folio is mapped",
        "the walk reads folio->mapping and mapcount; munmap frees the anon_vma, a first fault gets its memory and adds "
        "to the list; the walk locks it, and reads the list",
        ((0, "trylock anon_vma"), (1, "unlock mmap_lock #2"), (0, "")),
        ("referenced-reuse",),
        _published_unlocked,
        historic="d9d332e0874f",
    ),
    Mutant(
        "root-first",
        "anon_vma",
        "unlink_anon_vmas frees the oldest anon_vma first, and nothing holds a root but its own VMAs",
        "A exits, B exits: the root, in which the lock of B's own anon_vma lies, is freed before that",
        ((1, ""),),
        ("referenced-exit-family",),
        _root_first,
        historic="2010: the root last",
    ),
    Mutant(
        "no-rmap-locks",
        "anon_vma",
        "mremap moves entries into a VMA that a walk visits before the old one, without the rmap lock",
        "mremap has grown the target; the walk that takes migration entries out has passed it when the entry moves "
        "there, and finds none at the old place",
        ((0, "lock anon_vma #2"), (1, "lock ptl"), (0, "lock ptl #2"), (1, ""), (0, ""), (1, "")),
        ("migrate-mremap-back",),
        patches=(Patch("rmaplab.mm.mremap", "copy_vma", _no_rmap_locks),),
        historic="108d6642ad81",
    ),
    Mutant(
        "published-unfinished",
        "anon_vma",
        "vma->anon_vma is set before what it points to (a missing release barrier)",
        "the fault of the neighbour finds the anon_vma, and locks it through its root, which is not there",
        ((0, "write Vma"), (0, "read"), (1, "")),
        ("faults-neighbours",),
        _published_unfinished,
        (
            Patch("rmaplab.designs.anon_vma", "AnonVma.CONST", lambda names: tuple(n for n in names if n != "root")),
            Patch("rmaplab.designs.anon_vma", "AnonVma.ATOMIC", lambda names: (*names, "root")),
        ),
        historic="b6ac0b3f6013",
    ),
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
        "lazy-root-not-held",
        "gki_locked",
        "a walk does not hold the root VMA (hook 8)",
        "the walk reads folio->mapping; munmap frees the VMA; the walk reads its LazyRoot",
        ((0, "read Vma"), (1, "read Mm"), (0, "")),
        ("referenced-munmap", "migrate-munmap"),
        _root_not_held,
    ),
    Mutant(
        "lazy-root-pins-no-mm",
        "gki_locked",
        "a root VMA does not hold its mm_struct",
        "the walk holds the root; exit frees the mm; the walk looks into its VMA tree",
        ((0, "read the VMA tree"), (1, ""), (0, "")),
        ("referenced-exit", "reclaim-exit"),
        _set("root_pins_mm", False),
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
        _without_hook("try_dup_anon_rmap"),
    ),
    Mutant(
        "lazy-no-hook-9",
        "gki_locked",
        "mremap does not upgrade",
        "mremap; a walk looks at base + index, where the page lay before",
        ((1, "lock ptl #2"), (0, "")),
        ("reclaim-mremap-up", "migrate-mremap-down"),
        _without_hook("copy_vma", "move_page_tables"),
    ),
    Mutant(
        "lazy-no-hook-10",
        "gki_locked",
        "what comes back from the swap cache still names the root VMA",
        "both processes map the page again; a walk from the root does not come to the child",
        ((0, ""), (1, "")),
        ("swapin-both",),
        _without_hook("folio_swapped_in"),
    ),
    Mutant(
        "lazy-pin-unlocked",
        "gki_locked",
        "hook 4 does not hold the locks of the VMAs",
        "migration's walk has seen that folio->mapping names a VMA; fork upgrades it, and the walk takes the anon_vma "
        "for a VMA. Or, later: fork copies a migration entry, and migration does not come to the child",
        ((0, "read in rmap_walk #3"), (1, "change in copy_pte_range"), (0, "")),
        ("migrate-fork",),
        _set("pin_locks_vmas", False),
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
        _set("mm_by_rcu", False),
    ),
    Mutant(
        "mm-not-held",
        "gki_mm_locked",
        "a walk holds no reference of the mm (hook 4)",
        "the walk reads folio->mapping and leaves the RCU section; exit frees the mm; the walk looks into its VMA tree",
        ((0, "rcu_read_lock"), (1, ""), (0, "")),
        ("referenced-exit", "migrate-exit"),
        _mm_not_held,
    ),
    Mutant(
        "mm-no-hook-9",
        "gki_mm_locked",
        "mremap does not upgrade",
        "mremap; a walk looks at the address that the index is",
        ((1, "lock ptl #2"), (0, "")),
        ("reclaim-mremap-up",),
        _without_hook("copy_vma", "move_page_tables"),
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
    Mutant(
        "cow-late-link",
        "cow_context",
        "a child's context is linked below its parent's after its entries are copied (hook 5)",
        "fork has copied the entry; a walk does not come to the child",
        ((1, "read Mm #2"), (0, "")),
        ("migrate-fork",),
        _fork_without_link,
        (Patch("rmaplab.mm.fork", "_dup_mmap", _link_at_the_end),),
    ),
    Mutant(
        "cow-walk-unlocked",
        "cow_context",
        "a walk does not lock the tree of contexts (hook 3)",
        "it reads the records, and the ranges of VMAs, while munmap may take one away; seen without munmap",
        ((0, ""),),
        ("referenced-munmap", "referenced-exit-root"),
        without("rmap_walk_anon", "anon_vma_trylock_read", "anon_vma_read"),
    ),
    Mutant(
        "cow-unlink-unlocked",
        "cow_context",
        "unlink_anon_vmas does not lock the tree of contexts (hook 7)",
        "munmap takes away one of the records that the walk is reading",
        ((0, "rcu_read_lock"), (1, "")),
        ("referenced-munmap",),
        without("_drop", "anon_vma_write"),
    ),
    Mutant(
        "cow-exit-unlocked",
        "cow_context",
        "a context forgets its mm without the lock of the tree (hook 15)",
        "the parent exits, and its context forgets the mm, which the walk for the child's page reads",
        ((1, "read CowContext"), (0, "")),
        ("referenced-exit-root",),
        without("mm_gone", "anon_vma_write"),
    ),
    Mutant(
        "set-unlocked",
        "vma_set",
        "the list of a folio is changed without its lock (hooks 6 and 14)",
        "two processes that share the page leave it at once",
        ((0, "change in folio_put"), (1, "")),
        ("cow-both", "referenced-exit-root"),
        _list_unlocked,
    ),
    Mutant(
        "set-no-hook-14",
        "vma_set",
        "a VMA stays in the list of a folio that it no longer maps",
        "the parent exits; the walk comes to its VMA, which was freed",
        ((1, "change the VMA tree"), (0, "")),
        ("referenced-exit-root", "cow-both"),
        _without_hook("folio_removed"),
    ),
    Mutant(
        "set-no-hook-6",
        "vma_set",
        "fork does not add the child to the lists of the folios that it shares",
        "fork; a walk does not come to the child",
        ((1, ""), (0, "")),
        ("reclaim-fork",),
        _without_hook("try_dup_anon_rmap"),
    ),
)


def mutants() -> dict[str, Mutant]:
    """By name."""
    return {mutant.name: mutant for mutant in MUTANTS}
