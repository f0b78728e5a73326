# SPDX-License-Identifier: GPL-2.0-only
"""Recomputes what anon_vmas count, from the VMAs of all live address spaces, and compares."""

from collections import Counter
from collections.abc import Iterable

from rmaplab.designs.anon_vma import AnonVma, AnonVmaDesign
from rmaplab.mm.mm import Mm
from rmaplab.mm.vma import Vma

__all__ = ["check_anon_vmas"]


def check_anon_vmas(design: AnonVmaDesign, mms: Iterable[Mm]) -> None:
    """Raise AssertionError, naming the field, unless chains, interval trees, counters and slabs agree.

    mms: all live ones; nothing else may hold a reference (no folio is pinned).
    """
    vmas = [vma for mm in mms for vma in mm.vmas]
    linked: Counter[AnonVma] = Counter()  # anon_vma -> VMAs in whose chain it is
    active: Counter[AnonVma] = Counter()  # anon_vma -> VMAs that own it
    for vma in vmas:
        _check_chain(design, vma)
        linked.update(avc.anon_vma for avc in vma.anon_vma_chain)
        owner = design.owner(vma)
        if owner is not None:
            active[owner] += 1
    anon_vmas = set(linked)
    anon_vmas.update(anon_vma.root for anon_vma in linked)
    children = Counter(anon_vma.parent for anon_vma in anon_vmas if anon_vma.avcs)
    members = Counter(anon_vma.root for anon_vma in anon_vmas)
    for anon_vma in anon_vmas:
        assert len(anon_vma.avcs) == linked[anon_vma], "interval tree holds a VMA that is not linked"
        assert anon_vma.num_active_vmas == active[anon_vma], "num_active_vmas"
        assert anon_vma.refcount == (members[anon_vma] if anon_vma.root is anon_vma else 1), "refcount"
        if anon_vma.avcs:
            assert anon_vma.num_children == children[anon_vma], "num_children"
    # A design may keep a VMA that has left its tree for the sake of others that hold it.
    kept = {vma.reserved1 for vma in vmas if isinstance(vma.reserved1, Vma)}
    kernel = design.kernel
    assert kernel.vm_area_struct.live == len(kept.union(vmas)), "vm_area_struct: live objects"
    assert kernel.anon_vma.live == len(anon_vmas), "anon_vma: live objects"
    assert kernel.anon_vma_chain.live == linked.total(), "anon_vma_chain: live objects"


def _check_chain(design: AnonVmaDesign, vma: Vma) -> None:
    chain = vma.anon_vma_chain
    anon_vmas = [avc.anon_vma for avc in chain]
    assert len(set(anon_vmas)) == len(anon_vmas), f"{vma} is linked twice with one anon_vma"
    assert len({anon_vma.root for anon_vma in anon_vmas}) <= 1, f"{vma} is linked with two trees"
    for avc in chain:
        assert avc.vma is vma, f"{vma} has the AVC of another"
        assert avc in avc.anon_vma.avcs, f"interval tree lacks {vma}"
    owner = design.owner(vma)
    assert (owner is None) == (not chain), f"{vma} has links without an anon_vma, or the reverse"
    assert owner is None or owner in anon_vmas, f"{vma} is not linked with its own anon_vma"
