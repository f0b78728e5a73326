# SPDX-License-Identifier: GPL-2.0-only
"""One seeded fault for each hook: does the oracle notice, in whichever design?

A fault wraps or replaces a method of the design object, so it fits any design. Hooks 13 and 16 choose a lock and 15
ends a lifetime: one operation at a time cannot tell right from wrong there.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from rmaplab.check.history import Failure, run_history, shrink
from rmaplab.designs.registry import make_design
from rmaplab.mm.folio import Folio
from rmaplab.mm.hooks import Hooks
from rmaplab.mm.vma import Vma
from rmaplab.workload.walk_ops import generate

__all__ = ["FAULTS", "Fault", "Found", "find_fault"]


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault in hook `number`: what is wrong, and how it gets into a design object."""

    number: int
    text: str
    apply: Callable[[Any], None]


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


FAULTS = (
    Fault(1, "anon_vma_prepare does nothing", _nothing("anon_vma_prepare")),
    Fault(2, "folio_set_anon: index one too high", _index_off("folio_set_anon")),
    Fault(3, "rmap_walk_anon leaves out the last VMA", _skip_last),
    Fault(4, "folio_get_anon_vma finds nothing", _nothing("folio_get_anon_vma")),
    Fault(5, "anon_vma_fork does nothing", _nothing("anon_vma_fork")),
    Fault(6, "try_dup_anon_rmap: index one too high", _index_off("try_dup_anon_rmap")),
    Fault(
        7,
        "anon_vma_clone, unlink_anon_vmas do nothing",
        _both(_nothing("anon_vma_clone"), _nothing("unlink_anon_vmas")),
    ),
    Fault(8, "vm_area_free does nothing", _nothing("vm_area_free")),
    Fault(9, "move_page_tables: index one too high", _index_off("move_page_tables")),
    Fault(10, "folio_swapped_in: index one too high", _index_off("folio_swapped_in")),
    Fault(11, "ksm_walk visits nothing", _visits_nothing("ksm_walk")),
    Fault(12, "collect_procs_anon visits nothing", _visits_nothing("collect_procs_anon")),
)


@dataclass(frozen=True, slots=True)
class Found:
    """What became of a fault: histories until it was found (or run in vain), and the shrunk failure."""

    design: str
    fault: Fault
    histories: int
    failure: Failure | None


def find_fault(design: str, fault: Fault, *, histories: int = 300, seed: int = 1, length: int = 40) -> Found:
    """Run random histories under `design` with `fault` until the oracle notices."""

    def make() -> Hooks:
        made = make_design(design)
        fault.apply(made)
        return made

    for count in range(1, histories + 1):
        failure = run_history(make, generate(seed + count - 1, length))
        if failure is not None:
            return Found(design, fault, count, shrink(make, failure))
    return Found(design, fault, histories, None)
