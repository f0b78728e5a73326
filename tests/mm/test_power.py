# SPDX-License-Identifier: GPL-2.0-only
"""The oracles of test_properties.py find what they are there for: seeded faults, and a bug that Linux had."""

from typing import Any

import pytest

from rmaplab.designs.anon_vma import AnonVmaDesign
from rmaplab.mm import flags as fl
from rmaplab.mm.bug import KernelBug
from rmaplab.mm.kernel import Kernel
from rmaplab.mm.profile import PROFILES
from rmaplab.mm.vma import Vma
from rmaplab.workload.oracle import check_folios, missed_by_walks
from rmaplab.workload.random_ops import ANONYMOUS, PROT_RW, Op, World, describe, generate

MOVE = fl.MREMAP_MAYMOVE | fl.MREMAP_FIXED


class NoLinkAtSplit(AnonVmaDesign):
    """anon_vma_clone of a split or a move links nothing"""

    def anon_vma_clone(self, dst: Vma, src: Vma) -> None:
        if dst.vm_mm is not src.vm_mm:
            super().anon_vma_clone(dst, src)
        else:
            dst.anon_vma = None


class NoDupAtMerge(AnonVmaDesign):
    """A merge target does not take over the anon_vma of what it grows over"""

    def dup_anon_vma(self, dst: Vma, src: Vma) -> None:
        pass


class ForkLinksRootOnly(AnonVmaDesign):
    """A child is linked with the oldest of its parent's anon_vmas and its own, not with those between"""

    def anon_vma_clone(self, dst: Vma, src: Vma) -> None:
        chain = src.anon_vma_chain
        if dst.vm_mm is not src.vm_mm:
            src.anon_vma_chain = chain[:1]
        super().anon_vma_clone(dst, src)
        src.anon_vma_chain = chain


class LeakyUnlink(AnonVmaDesign):
    """unlink_anon_vmas leaves the newest AVC"""

    def unlink_anon_vmas(self, vma: Vma) -> None:
        if len(vma.anon_vma_chain) > 3:
            vma.anon_vma_chain.pop()
        super().unlink_anon_vmas(vma)


def first_failure(design: Any, seed: int, profile: str = "6.18") -> int | None:
    """The step at which a walk misses a mapping, an object leaks or the design breaks; None if all is well."""
    world = World(Kernel(design, PROFILES[profile]))
    history = generate(seed, 400)
    for step, op in enumerate(history, 1):
        try:
            world.apply(op)
            if missed_by_walks(world.kernel, world.mms.values()):
                return step
        except (
            AttributeError,
            ValueError,
            KernelBug,
        ):  # a poisoned field, an AVC that is not there, unlink_anon_vmas' own check
            return step
    world.exit_all()
    return len(history) if any(slab.live for slab in world.kernel.slabs) else None


@pytest.mark.parametrize("mutant", [NoLinkAtSplit, NoDupAtMerge, ForkLinksRootOnly, LeakyUnlink])
def test_mutant_is_found_within_20_histories(mutant: type[AnonVmaDesign]) -> None:
    """Without check_anon_vmas, which knows the design: the walks and the slabs alone must show it."""
    assert any(first_failure(mutant(), seed) is not None for seed in range(20))


MOVED_NEXT_TO_UNFAULTED = [
    Op(1, "mmap", (0x10000, 4, PROT_RW, fl.MAP_FIXED, ANONYMOUS)),
    Op(1, "write", (0x10002,)),
    Op(1, "mremap", (0x10002, 2, 2, MOVE, 0x10020)),
    Op(1, "munmap", (0x10000, 2)),
    Op(1, "mmap", (0x10000, 2, PROT_RW, fl.MAP_FIXED, ANONYMOUS)),
    Op(1, "mremap", (0x10020, 2, 2, MOVE, 0x10002)),
]


@pytest.mark.parametrize(("profile", "missed"), [("6.12", 0), ("6.16", 1), ("6.18", 0)])
def test_bug_of_v6_16_is_found_where_it_was(profile: str, missed: int) -> None:
    """61f67c230a5e: from 6.16 an unfaulted VMA grew over moved pages without their anon_vma. 6.12 did not merge."""
    world = World(Kernel(AnonVmaDesign(), PROFILES[profile]))
    for op in MOVED_NEXT_TO_UNFAULTED:
        world.apply(op)
    assert len(missed_by_walks(world.kernel, world.mms.values())) == missed


def test_folio_oracle_finds_wrong_counts_and_shared_writable_pages() -> None:
    """check_folios must be able to fail, too."""
    world = World(Kernel(AnonVmaDesign()))
    for op in MOVED_NEXT_TO_UNFAULTED[:2]:
        world.apply(op)
    kernel, mms = world.kernel, list(world.mms.values())
    check_folios(kernel, mms)
    (folio,) = kernel.mem.folios()
    folio.mapcount = 2
    with pytest.raises(AssertionError, match="mapcount"):
        check_folios(kernel, mms)
    folio.mapcount, folio.exclusive = 1, 0
    with pytest.raises(AssertionError, match="shared and writable"):
        check_folios(kernel, mms)
    folio.exclusive = 1
    kernel.mem.alloc()
    with pytest.raises(AssertionError, match="nothing maps"):
        check_folios(kernel, mms)


def test_histories_are_deterministic_and_told_in_lines() -> None:
    assert generate(7, 200, huge=True) == generate(7, 200, huge=True)
    assert generate(7, 200) != generate(8, 200)
    assert generate(7, 200)[:100] == generate(7, 100)
    lines = [describe(op) for op in generate(7, 500, huge=True)]
    assert all(line.split(":")[0].isdigit() and "\n" not in line and len(line) < 110 for line in lines)
    assert describe(MOVED_NEXT_TO_UNFAULTED[2]) == (
        "1: mremap(0x10002000, 2 pages, 2 pages, MREMAP_MAYMOVE|MREMAP_FIXED, 0x10020000)"
    )


def test_histories_reach_what_they_should() -> None:
    """Deep trees, moved VMAs and every operation: a generator that stays in shallow water would find nothing."""
    world = World(Kernel(AnonVmaDesign()))
    deepest = most = 0
    names = set()
    for op in generate(3, 2000, processes=8):
        world.apply(op)
        names.add(op.name)
        vmas = [vma for mm in world.mms.values() for vma in mm.vmas]
        deepest = max([deepest, *(len(vma.anon_vma_chain) for vma in vmas)])
        most = max(most, len(vmas))
    assert deepest >= 4
    assert most >= 50
    assert len(names) == 14
