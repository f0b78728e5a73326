# SPDX-License-Identifier: GPL-2.0-only
"""The cost figures of `rmaplab compare --cost`: text and JSON."""

from collections.abc import Mapping
from typing import Any

from rmaplab.mm.kernel import CACHE_NAMES
from rmaplab.replay.cost import DesignCost, OperationCost, WalkCost
from rmaplab.report.text import share, wrap

__all__ = ["cost_json", "cost_lines"]

_RMAP = ("anon_vma_read", "anon_vma_write")
# columns of the table of locks: the kinds, read and write together, that it sums
_COLUMNS = {
    "mmap": ("mmap_read", "mmap_write"),
    "VMA": ("vma_read", "vma_write"),
    "rmap": _RMAP,
    "page table": ("page_table",),
    "folio": ("folio",),
}

_NOTES = (
    "VMAs: visited by a walk; fruitless: no page-table entry there maps the folio; look-ups: searches in the VMA tree"
    " of an mm, where the design tells",
    "locks of a walk: without those of page tables; objects of rmap: all but VMAs; locks of rmap: the anon_vma's rwsem"
    " or what the design has in its place, and on how many objects",
)


def _mean(total: int, count: int) -> str:
    return f"{total / count:.2f}" if count else "-"


def _sum(counts: Mapping[str, int], kinds: tuple[str, ...]) -> int:
    return sum(counts.get(kind, 0) for kind in kinds)


def cost_lines(costs: dict[str, DesignCost]) -> list[str]:
    """Tables of at most 75 columns."""
    walks = next(iter(costs.values())).walk.walks
    lines = [
        f"cost of a walk at the peak: mean over {walks} folios, one walk each",
        f"{'':<17}{'VMAs':>8}{'p99':>7}{'most':>7}{'fruitless':>12}{'locks':>9}{'look-ups':>11}",
    ]
    lines += [_walk_line(design, cost.walk) for design, cost in costs.items()]
    for title, name in (("a fork", "fork"), ("a first fault of a VMA", "first_fault")):
        count = getattr(next(iter(costs.values())), name).count
        lines += [
            "",
            f"cost of {title}: mean of {count} until the peak",
            f"{'':<17}{'objects':>9}{'of rmap':>9}{'locks':>10}{'of rmap':>10}{'rmap objects locked':>20}",
        ]
        lines += [_operation_line(design, getattr(cost, name)) for design, cost in costs.items()]
    lines += ["", "locks taken until the peak", f"{'':<17}" + "".join(f"{column:>11}" for column in _COLUMNS)]
    for design, cost in costs.items():
        sums = (_sum(cost.locks, kinds) for kinds in _COLUMNS.values())
        lines.append(f"{design[:16]:<17}" + "".join(f"{total:>11}" for total in sums))
    added = ", ".join(f"{design} {cost.vma_bytes:+d}" for design, cost in costs.items())
    lines += ["", *wrap(f"bytes added to vm_area_struct: {added}", "  ")]
    return lines + [line for note in _NOTES for line in wrap(note, "  ")]


def _walk_line(design: str, walk: WalkCost) -> str:
    lookups = "-" if walk.lookups is None else _mean(walk.lookups, walk.walks)
    fruitless = share(walk.fruitless, walk.visits) if walk.visits else "-"
    return (
        f"{design[:16]:<17}{_mean(walk.visits, walk.walks):>8}{walk.p99:>7}{walk.most:>7}{fruitless:>12}"
        f"{_mean(sum(walk.locks.values()), walk.walks):>9}{lookups:>11}"
    )


def _operation_line(design: str, cost: OperationCost) -> str:
    objects = cost.allocated.total()
    means = (
        (objects, 9),
        (objects - cost.allocated[CACHE_NAMES[0]], 9),
        (cost.locks.total(), 10),
        (_sum(cost.locks, _RMAP), 10),
        (cost.rmap_objects, 20),
    )
    return f"{design[:16]:<17}" + "".join(f"{_mean(total, cost.count):>{width}}" for total, width in means)


def cost_json(costs: dict[str, DesignCost]) -> dict[str, Any]:
    """By design; totals, not means."""
    return {
        design: {
            "walk": {
                "walks": cost.walk.walks,
                "visits": cost.walk.visits,
                "visits_p99": cost.walk.p99,
                "visits_most": cost.walk.most,
                "fruitless": cost.walk.fruitless,
                "locks": cost.walk.locks,
                "lookups": cost.walk.lookups,
            },
            "fork": _operation_json(cost.fork),
            "first_fault": _operation_json(cost.first_fault),
            "locks": cost.locks,
            "vma_bytes": cost.vma_bytes,
        }
        for design, cost in costs.items()
    }


def _operation_json(cost: OperationCost) -> dict[str, Any]:
    return {
        "count": cost.count,
        "allocated": dict(cost.allocated),
        "locks": dict(cost.locks),
        "rmap_objects": cost.rmap_objects,
    }
