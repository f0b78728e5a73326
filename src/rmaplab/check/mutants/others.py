# SPDX-License-Identifier: GPL-2.0-only
"""Mistakes in the designs that are not lazy."""

from contextlib import nullcontext
from typing import Any

from rmaplab.check.mutant import Mutant, Patch, without, without_hook
from rmaplab.designs.cow_tree import CowContext
from rmaplab.mm.vma import Vma

__all__ = ["OTHERS"]


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


OTHERS: tuple[Mutant, ...] = (
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
        without_hook("folio_removed"),
    ),
    Mutant(
        "set-no-hook-6",
        "vma_set",
        "fork does not add the child to the lists of the folios that it shares",
        "fork; a walk does not come to the child",
        ((1, ""), (0, "")),
        ("reclaim-fork",),
        without_hook("try_dup_anon_rmap"),
    ),
)
