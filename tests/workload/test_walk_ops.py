# SPDX-License-Identifier: GPL-2.0-only
"""Random histories with the users of the walk: the oracle stays silent under every design, and finds seeded faults."""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import rmaplab.mm.fork
import rmaplab.mm.swap
from rmaplab.check.violation import Violation
from rmaplab.designs.anon_vma import AnonVma, AnonVmaDesign
from rmaplab.designs.registry import make_design
from rmaplab.mm.folio import Folio
from rmaplab.mm.kernel import Kernel
from rmaplab.mm.ksm import Ksm
from rmaplab.mm.pagetable import EXCLUSIVE, KIND_MASK, SWAP
from rmaplab.mm.profile import PROFILES
from rmaplab.mm.swap import Swap
from rmaplab.mm.vma import Vma
from rmaplab.workload.random_ops import Op
from rmaplab.workload.walk_ops import WALK_OPS, WalkWorld, describe, generate
from tests.support.designs import DESIGNS


def run(design: Any, history: list[Op], *, profile: str = "6.18", thp: str = "madvise", every: int = 1) -> None:
    """Apply `history`, asking the oracle after each `every` operations; a failure tells the history up to there."""
    world = WalkWorld(Kernel(design, PROFILES[profile], thp=thp, contents=True))
    step = 0
    try:
        for step, op in enumerate(history, 1):
            world.apply(op)
            if not step % every:
                world.check()
                for mm in world.mms.values():
                    mm.check()
        world.check()
        world.exit_all()
    except Exception as error:
        error.add_note("history:\n" + "\n".join(map(describe, history[:step])))
        raise


@pytest.mark.parametrize("design", DESIGNS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 1 << 32), length=st.integers(1, 80), profile=st.sampled_from(sorted(PROFILES)))
def test_short_histories(design: str, seed: int, length: int, profile: str) -> None:
    run(make_design(design), generate(seed, length), profile=profile)


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("seed", range(2))
def test_long_histories(design: str, seed: int) -> None:
    run(make_design(design), generate(seed, 600, processes=6), every=20)


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("thp", ["always", "madvise"])
@pytest.mark.parametrize("seed", range(2))
def test_huge_histories(design: str, thp: str, seed: int) -> None:
    run(make_design(design), generate(seed, 120, huge=True), every=10, thp=thp)


@pytest.mark.parametrize("design", DESIGNS)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), seed=st.integers(0, 1 << 32))
def test_any_part_of_a_history_is_a_history(design: str, data: st.DataObject, seed: int) -> None:
    history = generate(seed, 60)
    keep = data.draw(st.lists(st.booleans(), min_size=len(history), max_size=len(history)))
    run(make_design(design), [op for op, kept in zip(history, keep, strict=True) if kept], every=20)


def test_histories_repeat_and_do_everything() -> None:
    assert generate(3, 50) == generate(3, 50)
    names = {op.name for seed in range(20) for op in generate(seed, 100)}
    assert names.issuperset(WALK_OPS)


@pytest.mark.parametrize(
    ("op", "text"),
    [
        (Op(1, "store", (0x10, 1, 7)), "1: store(0x10000, 1 page, token 7)"),
        (Op(1, "load", (0x10, 2)), "1: load(0x10000, 2 pages)"),
        (Op(2, "reclaim", (0x10, 3, 0)), "2: reclaim(0x10000, 3 pages)"),
        (Op(1, "poison", (0x10,)), "1: poison(0x10000)"),
        (Op(1, "fork", (2,)), "1: fork(child 2)"),
    ],
)
def test_described_as_a_line(op: Op, text: str) -> None:
    assert describe(op) == text


# --- power: a fault in a design, or in mm, is found within a few hundred short histories


class NoItems(AnonVmaDesign):
    """Hook 11 walks the VMA of the item only, not what was forked from it."""

    def ksm_walk(self, pinned: AnonVma, address: int) -> Iterator[tuple[Vma, int]]:
        yield from list(super().ksm_walk(pinned, address))[:1]


class UnpinnedItems(AnonVmaDesign):
    """Hook 11 takes no reference."""

    def ksm_pin(self, vma: Vma) -> AnonVma:
        return vma.anon_vma  # type: ignore[no-any-return]


class KillsParent(AnonVmaDesign):
    """Hook 12 walks the folio's own mm only."""

    def collect_procs_anon(self, folio: Folio) -> Iterator[tuple[Vma, int]]:
        yield from list(self.rmap_walk_anon(folio))[:1]


class UnpinnedMigration(AnonVmaDesign):
    """Hook 4 puts what it did not get."""

    def folio_get_anon_vma(self, folio: Folio) -> AnonVma | None:
        return folio.mapping if folio.mapcount else None


class SwapInTakesOver(AnonVmaDesign):
    """Hook 10 gives a page that is still shared to the first process that reads it."""

    def folio_swapped_in(self, folio: Folio, vma: Vma, address: int, exclusive: bool) -> None:
        folio.mapping = vma.anon_vma


class SetForOneself(AnonVmaDesign):
    """Hook 2 ignores that a page read from swap may be shared."""

    def folio_set_anon(self, folio: Folio, vma: Vma, address: int, exclusive: bool) -> None:
        super().folio_set_anon(folio, vma, address, True)


def finds(design: type[AnonVmaDesign], name: str | None = None) -> str:
    """What the first history that fails breaks"""
    for seed in range(200):
        try:
            run(design(), generate(seed, 60, share=0.8))
        except Violation as violation:
            return violation.name
        except (AttributeError, AssertionError, ValueError):
            return "use-after-free"
    return "nothing"


@pytest.mark.parametrize(
    ("design", "name"),
    [
        (NoItems, "walk-misses-pte"),
        (UnpinnedItems, "use-after-free"),
        (KillsParent, "walk-misses-pte"),
        (UnpinnedMigration, "use-after-free"),
        (SwapInTakesOver, "walk-misses-pte"),
        (SetForOneself, "walk-misses-pte"),
    ],
)
def test_fault_of_a_design_is_found(design: type[AnonVmaDesign], name: str) -> None:
    assert finds(design) == name


def fork_keeps_exclusive(patch: pytest.MonkeyPatch) -> None:
    """copy_nonpresent_pte forgets pte_swp_clear_exclusive"""
    real = rmaplab.mm.fork.copy_nonpresent_pte

    def copy(table: dict[int, int], vpn: int, vma: Vma, pvma: Vma) -> int:
        before = table[vpn]
        entry = real(table, vpn, vma, pvma)
        if before & KIND_MASK == SWAP:
            table[vpn] = before
            return before
        return entry

    patch.setattr(rmaplab.mm.fork, "copy_nonpresent_pte", copy)


def fork_counts_no_swap(patch: pytest.MonkeyPatch) -> None:
    """copy_nonpresent_pte forgets swap_duplicate"""
    patch.setattr(rmaplab.mm.fork, "copy_nonpresent_pte", lambda table, vpn, *_: table[vpn] & ~EXCLUSIVE)


def unmap_loses_pages(patch: pytest.MonkeyPatch) -> None:
    """shrink_folio_list does not write the page"""
    patch.setattr(Swap, "writeout", lambda self, folio: None)


def old_slot_contents(patch: pytest.MonkeyPatch) -> None:
    """A page that was in the swap cache is not written again"""

    def writeout(self: Swap, folio: Folio) -> None:
        first = self.slot_of[folio]
        if first not in self.disk:
            real(self, folio)

    real = Swap.writeout
    patch.setattr(Swap, "writeout", writeout)


def ksm_leaves_write(patch: pytest.MonkeyPatch) -> None:
    """write_protect_page forgets PageAnonExclusive"""
    real = Ksm._write_protect_page

    def protect(self: Ksm, mm: Any, address: int, folio: Folio, own: int) -> bool:
        done = real(self, mm, address, folio, own)
        folio.exclusive = 1
        return done

    patch.setattr(Ksm, "_write_protect_page", protect)


def ksm_swap_is_shared(patch: pytest.MonkeyPatch) -> None:
    """do_swap_page without ksm_might_need_to_copy"""
    patch.setattr(rmaplab.mm.swap, "_needs_copy", lambda folio, vma, slot: False)


def migration_forgets_swap_cache(patch: pytest.MonkeyPatch) -> None:
    """__folio_migrate_mapping leaves the old folio in the swap cache"""
    patch.setattr(Swap, "replace", lambda self, folio, new: True)


@pytest.mark.parametrize(
    ("fault", "names"),
    [
        (fork_keeps_exclusive, {"cow-isolation"}),
        (fork_counts_no_swap, {"refcount", "use-after-free"}),
        (unmap_loses_pages, {"cow-isolation"}),
        (old_slot_contents, {"cow-isolation"}),
        (ksm_leaves_write, {"cow-isolation"}),
        (ksm_swap_is_shared, {"walk-misses-pte"}),
        (migration_forgets_swap_cache, {"use-after-free", "refcount", "leak"}),
    ],
)
def test_fault_of_mm_is_found(fault: Any, names: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    fault(monkeypatch)
    assert finds(AnonVmaDesign) in names
