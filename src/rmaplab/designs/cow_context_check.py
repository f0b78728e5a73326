# SPDX-License-Identifier: GPL-2.0-only
"""Recomputes contexts and remap records from the address spaces, and compares."""

from collections import Counter
from collections.abc import Iterable

from rmaplab.designs.cow_context import CowContext, CowContextDesign, Remap
from rmaplab.mm.flags import PAGE_SHIFT
from rmaplab.mm.mm import Mm
from rmaplab.mm.pagetable import ENTRY_SHIFT, KIND_MASK, PRESENT
from rmaplab.mm.stable_node import folio_test_ksm

__all__ = ["check_contexts"]


def check_contexts(design: CowContextDesign, mms: Iterable[Mm]) -> None:
    """Raise AssertionError, naming the field, unless tree, counters, records and slabs agree.

    mms: all live ones; nothing else may hold a reference (no folio is isolated, KSM remembers none).
    """
    live = set(mms)
    assert set(design.contexts) <= live, "an mm that is gone has a context"
    seen: set[CowContext] = set()
    for mm, context in design.contexts.items():
        assert context.mm is mm, "mm of a context"
        above: CowContext | None = context
        while above is not None and above not in seen:
            seen.add(above)
            above = above.parent
    for context in seen:
        assert context.refcount == len(context.children) + (context.mm is not None), "refcount"
        assert context.children or context.mm is not None, "a dead context without children is left"
        assert set(context.children) <= seen, "a child that is gone"
        assert all(child.parent is context for child in context.children), "parent"
        assert not context.unnamed or context.is_link(), "unnamed"
    _check_remaps(design, live, seen)
    for mm in live:
        _check_names(design, mm)
    caches = {slab.name: slab.live for slab in design.kernel.slabs}
    assert caches["cow_context"] == len(seen), "cow_context: live objects"
    records = sum(bool(base) for context in seen for base in context.remaps)
    assert caches["cow_remap"] == records, "cow_remap: live objects"
    assert caches["anon_vma"] == caches["anon_vma_chain"] == 0


def _check_remaps(design: CowContextDesign, mms: set[Mm], contexts: set[CowContext]) -> None:
    vmas: Counter[Remap] = Counter()
    for mm in mms:
        for vma in mm.vmas:
            remap = vma.anon_vma
            if remap is not None:
                assert remap.context is design.contexts[mm], f"{vma}: context of another mm"
                assert remap.base == vma.vm_start - (vma.vm_pgoff << PAGE_SHIFT), f"{vma}: base"
                vmas[remap] += 1
    for context in contexts:
        assert context.mm is not None or not context.remaps, "records of a dead context"
        for base, remap in context.remaps.items():
            assert (remap.base, remap.context) == (base, context)
            assert remap.vmas == vmas[remap], "vmas"


def _check_names(design: CowContextDesign, mm: Mm) -> None:
    """Every folio names an ancestor of the contexts of all that map it, or that context."""
    ancestors: set[CowContext] = set()
    context = design.contexts.get(mm)
    while context is not None:
        ancestors.add(context)
        context = context.parent
    for vpn, entry in mm.anon_entries():
        if entry & KIND_MASK == PRESENT:
            folio = design.kernel.mem.pages[entry >> ENTRY_SHIFT]
            assert folio is not None
            if not folio_test_ksm(folio):
                assert folio.mapping in ancestors, f"{vpn:#x}: the folio names a context of others"
