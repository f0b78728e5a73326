# SPDX-License-Identifier: GPL-2.0-only
"""Does a walk miss an entry although nothing happened to it from the walk's first step to its last?

At the start, the entries that map the folio are noted. Whatever changes meanwhile is struck out. What is left when the
walk has come to its end by itself, it must have visited: `walk-misses-pte`. But for entries whose VMA has left its
tree, or whose process has no user left: somebody is about to take them away. A walk that was ended by its caller, or
that could not get a lock and said so, has promised nothing.
"""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

from rmaplab.check.engine import Run
from rmaplab.check.footprint import READ
from rmaplab.check.machine import CheckedKernel
from rmaplab.check.ops import page_name
from rmaplab.check.oracle import Words
from rmaplab.check.violation import WALK_MISSES_PTE, WALK_WRONG_VMA, Violation
from rmaplab.mm.folio import Folio
from rmaplab.mm.pagetable import ENTRY_SHIFT, KIND_MASK, PRESENT
from rmaplab.mm.rmap import vma_address_end
from rmaplab.mm.vma import Vma

__all__ = ["watch_walks"]


class _Monitor:
    """One walk: what it must still visit."""

    def __init__(self, kernel: CheckedKernel, folio: Folio) -> None:
        task, kernel.run.task = kernel.run.task, None
        self.owed: set[tuple[Any, int]] = set()
        first, last = folio.pfn, folio.pfn + folio.nr_pages
        for mm in kernel.mms:
            for vpn, entry in mm.anon_entries():
                if entry & KIND_MASK == PRESENT and first <= entry >> ENTRY_SHIFT < last:
                    self.owed.add((mm, vpn))
        kernel.run.task = task
        kernel.run.touch((kernel.run.name(folio), "places"), READ)

    def visit(self, run: Run, folio: Folio, vma: Vma, address: int) -> None:
        """The walk looks at `vma` from `address` on."""
        task, run.task = run.task, None
        end = vma_address_end(folio, vma, address)
        mm = vma.vm_mm
        inside = vma.vm_start <= address < vma.vm_end
        run.task = task
        if not inside:
            raise Violation(WALK_WRONG_VMA, f"a walk visits {run.name(vma)} at {page_name(address >> 12)}, outside")
        self.owed -= {(mm, vpn) for vpn in range(address >> 12, end >> 12)}

    def forgive(self, run: Run) -> None:
        """What somebody is about to take away need not be visited: the VMA has left its tree, or the process its last
        user."""
        task, run.task = run.task, None
        self.owed = {(mm, vpn) for mm, vpn in self.owed if mm.users and run.trees[mm].find(vpn << 12, (vpn + 1) << 12)}
        run.task = task


def watch_walks(kernel: CheckedKernel, run: Run, words: Words) -> None:
    """Watch the walks of hook 3 on `kernel`."""
    hooks: Any = kernel.hooks
    original = hooks.rmap_walk_anon

    def rmap_walk_anon(folio: Folio, pinned: Any = None, locked: bool = False) -> Iterator[tuple[Vma, int]]:
        if run.task is None:
            yield from original(folio, pinned, locked)
            return
        monitor = _Monitor(kernel, folio)
        run.monitors.append(monitor)
        try:
            with closing(original(folio, pinned, locked)) as places:
                for vma, address in places:
                    monitor.visit(run, folio, vma, address)
                    yield vma, address
            run.touch((run.name(folio), "places"), READ)
            monitor.forgive(run)
            if monitor.owed:
                mm, vpn = min(monitor.owed, key=lambda place: (place[0].ident, place[1]))
                raise Violation(
                    WALK_MISSES_PTE,
                    f"a walk for {run.name(folio)} does not come to {words.place(mm, vpn)}, which maps it all the time",
                )
        finally:
            run.monitors.remove(monitor)

    hooks.rmap_walk_anon = rmap_walk_anon
