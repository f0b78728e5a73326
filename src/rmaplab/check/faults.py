# SPDX-License-Identifier: GPL-2.0-only
"""One seeded fault for each hook: does the oracle notice, in whichever design?

A fault wraps or replaces a method of the design object, so it fits any design. Where a hook only chooses among locks
that could all be taken, or ends a lifetime that nobody looks at later, one operation at a time cannot tell right from
wrong: such a fault is seeded only in the designs where it can (`designs`).
"""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from rmaplab.check.ablation import drop_hooks, failing_scenarios
from rmaplab.check.history import Failure, run_history, shrink
from rmaplab.designs.registry import make_design
from rmaplab.mm.folio import Folio
from rmaplab.mm.hooks import Hooks
from rmaplab.mm.vma import Vma
from rmaplab.workload.walk_ops import generate

__all__ = ["FAULTS", "Fault", "Found", "find_fault"]


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault in hook `number`: what is wrong, and how it gets into a design object.

    designs: those that it makes wrong one operation at a time, with their forms called NAME_locked; empty: all
    """

    number: int
    text: str
    apply: Callable[[Any], None]
    designs: frozenset[str] = frozenset()

    def fits(self, design: str) -> bool:
        """Is it to be found in `design`?"""
        return not self.designs or design.removesuffix("_locked") in self.designs


def _nothing(method: str) -> Callable[[Any], None]:
    def apply(design: Any) -> None:
        setattr(design, method, lambda *args: None)

    return apply


def _both(*faults: Callable[[Any], None]) -> Callable[[Any], None]:
    def apply(design: Any) -> None:
        for fault in faults:
            fault(design)

    return apply


def _visits_nothing(method: str) -> Callable[[Any], None]:
    def apply(design: Any) -> None:
        setattr(design, method, lambda *args: iter(()))

    return apply


def _locks_nothing(method: str) -> Callable[[Any], None]:
    def apply(design: Any) -> None:
        setattr(design, method, lambda *args: nullcontext())

    return apply


def _index_off(method: str) -> Callable[[Any], None]:
    """The first argument's index is one too high afterwards"""

    def apply(design: Any) -> None:
        original = getattr(design, method)

        def faulty(folio: Folio, *args: Any) -> Any:
            result = original(folio, *args)
            folio.index += 1
            return result

        setattr(design, method, faulty)

    return apply


def _skip_last(design: Any) -> None:
    original = design.rmap_walk_anon

    def faulty(folio: Folio, *args: Any) -> Iterator[tuple[Vma, int]]:
        yield from list(original(folio, *args))[:-1]

    design.rmap_walk_anon = faulty


def _as_mainline(number: int) -> Callable[[Any], None]:
    def apply(design: Any) -> None:
        drop_hooks(design, (number,))

    return apply


FAULTS = (
    Fault(1, "anon_vma_prepare does nothing", _nothing("anon_vma_prepare")),
    Fault(2, "folio_set_anon: index one too high", _index_off("folio_set_anon")),
    Fault(3, "rmap_walk_anon leaves out the last VMA", _skip_last),
    Fault(4, "folio_get_anon_vma finds nothing", _nothing("folio_get_anon_vma")),
    Fault(5, "anon_vma_fork does nothing", _nothing("anon_vma_fork")),
    Fault(6, "try_dup_anon_rmap: index one too high", _index_off("try_dup_anon_rmap")),
    Fault(
        7,
        "anon_vma_clone, anon_vma_lock, unlink_anon_vmas do nothing",
        _both(_nothing("anon_vma_clone"), _locks_nothing("anon_vma_lock"), _nothing("unlink_anon_vmas")),
    ),
    Fault(8, "vm_area_free does nothing", _nothing("vm_area_free")),
    Fault(9, "move_page_tables: index one too high", _index_off("move_page_tables")),
    Fault(10, "folio_swapped_in: index one too high", _index_off("folio_swapped_in")),
    Fault(11, "ksm_walk visits nothing", _visits_nothing("ksm_walk")),
    Fault(12, "collect_procs_anon visits nothing", _visits_nothing("collect_procs_anon")),
    Fault(
        13,
        "collapse_lock takes vma->anon_vma for an anon_vma",
        _as_mainline(13),
        frozenset({"anon_vma_lazy", "cow_context", "vma_set"}),
    ),
    Fault(14, "folio_removed does nothing", _nothing("folio_removed"), frozenset({"vma_set"})),
    Fault(15, "mm_gone does nothing", _nothing("mm_gone"), frozenset({"cow_context", "vma_set"})),
    Fault(
        16,
        "split_lock takes what is pinned for an anon_vma",
        _as_mainline(16),
        frozenset({"anon_vma_lazy", "cow_context", "gki", "gki_mm", "gki_nofork", "gki_sync", "vma_set"}),
    ),
)


@dataclass(frozen=True, slots=True)
class Found:
    """What became of a fault: random histories until it was found (or run in vain; 0: a scenario found it), and the
    shrunk failure."""

    design: str
    fault: Fault
    histories: int
    failure: Failure | None


def find_fault(design: str, fault: Fault, *, histories: int = 300, seed: int = 1, length: int = 40) -> Found:
    """Run the scenarios, then random histories under `design` with `fault` until the oracle notices; of the scenarios
    that fail, the shortest."""

    def make() -> Hooks:
        made = make_design(design)
        fault.apply(made)
        return made

    failures = sorted(failing_scenarios(make).values(), key=lambda failure: len(failure.history))
    if failures:
        return Found(design, fault, 0, shrink(make, failures[0]))
    for count in range(1, histories + 1):
        failure = run_history(make, generate(seed + count - 1, length))
        if failure is not None:
            return Found(design, fault, count, shrink(make, failure))
    return Found(design, fault, histories, None)
