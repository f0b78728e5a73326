# SPDX-License-Identifier: GPL-2.0-only
"""Bugs that Linux had."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from rmaplab.check.mutant import Mutant, Patch, without
from rmaplab.designs.anon_vma import AnonVma, AnonVmaChain
from rmaplab.mm.folio import Folio
from rmaplab.mm.slab import AllocationFailure
from rmaplab.mm.vma import Vma

__all__ = ["HISTORIC", "trylock_mapped"]


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


def trylock_mapped(design: Any, folio: Folio) -> tuple[Any, Any]:
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
            anon_vma, guard = trylock_mapped(design, folio)
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


HISTORIC: tuple[Mutant, ...] = (
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
)
