# SPDX-License-Identifier: GPL-2.0-only
"""One execution of a world under a design, from the setup to the last check. Re-executed from the start for each list
of choices; nothing is ever restored."""

import gc
from collections.abc import Callable
from types import TracebackType
from typing import Any

from rmaplab.check.engine import Run, Step
from rmaplab.check.machine import CheckedKernel
from rmaplab.check.ops import Machine, Operation, page_name
from rmaplab.check.oracle import Words, check_gone, check_walks
from rmaplab.check.violation import (
    BAD_DEREFERENCE,
    COW_ISOLATION,
    KERNEL_BUG,
    USE_AFTER_FREE,
    WALK_MISSES_PTE,
    Violation,
)
from rmaplab.check.walk_monitor import watch_walks
from rmaplab.check.watch.fields import activate
from rmaplab.check.watch.model import watching
from rmaplab.check.watch.tree import Tree
from rmaplab.check.world import World
from rmaplab.mm.access import mm_peek
from rmaplab.mm.bug import KernelBug
from rmaplab.mm.exit import exit_mmap
from rmaplab.mm.folio import folio_put
from rmaplab.mm.hooks import Hooks
from rmaplab.mm.mm import Mm
from rmaplab.mm.pagetable import ENTRY_SHIFT, KIND_MASK, MIGRATION
from rmaplab.mm.slab import UseAfterFree

__all__ = ["Execution", "Laboratory"]


GARBAGE = 5_000
"""Python looks for garbage in cycles after so many new objects, of which an execution leaves some hundred. More often,
as it does by itself, takes time; much less often, new objects are never in the cache."""


class _AsViolations:
    """What the model raises where the kernel would crash, by the name of the invariant"""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if isinstance(error, UseAfterFree):
            raise Violation(USE_AFTER_FREE, str(error)) from error
        if isinstance(error, KernelBug):
            raise Violation(KERNEL_BUG, str(error)) from error
        if isinstance(error, AttributeError | TypeError | AssertionError | KeyError | ValueError | IndexError):
            raise Violation(BAD_DEREFERENCE, f"{type(error).__name__}: {error}") from error


_AS_VIOLATIONS = _AsViolations()


class Execution(Words):
    """An execution in progress: `run` says who can go on, :meth:`finish` checks the end."""

    def __init__(self, laboratory: "Laboratory", report: bool = False) -> None:
        world = laboratory.world
        self.world = world
        self.run = Run(
            [f"CPU{i}" for i in range(len(world.cpus))], fail=world.fail, tryfail=world.tryfail, report=report
        )
        activate(self.run)
        self.design = laboratory.make_design()
        self.kernel = CheckedKernel(self.design, self.run, laboratory.order, reuse=world.reuse, thp=world.thp)
        self.machine = Machine(self.kernel, world.cpus)
        watch_walks(self.kernel, self.run, self)
        with _AS_VIOLATIONS:
            for operation in world.setup:
                self.machine.apply(operation)
            for operations in world.cpus:
                for operation in operations:
                    self.machine.prepare(operation)
        for mm in self.kernel.mms:
            self.run.trees[mm] = Tree(mm.vmas)
        self.run.start([self._body(operations) for operations in world.cpus])

    def _body(self, operations: tuple[Operation, ...]) -> Callable[[], None]:
        def body() -> None:
            task = self.run.task
            assert task is not None
            for operation in operations:
                task.operation = operation.text
                with _AS_VIOLATIONS:
                    self.machine.apply(operation)

        return body

    def step(self, index: int, outcome: int = 0) -> Step:
        """Let CPU `index` go on to its next scheduling point."""
        return self.run.step(index, outcome)

    def finish(self) -> Violation | None:
        """Check the end: all CPUs are done, or none can go on. What was violated, if anything."""
        run = self.run
        if run.violation is None:
            if not run.done():
                run.check_deadlock()
            else:
                try:
                    with _AS_VIOLATIONS:
                        self._check_end()
                except Violation as violation:
                    run.violation = violation
        self.abandon()
        return run.violation

    def abandon(self) -> None:
        """Forget what is still going on."""
        activate(None)
        self.run.abandon()

    # --- the end

    def _check_end(self) -> None:
        activate(None)
        kernel, mms = self.kernel, list(self.machine.mms.values())
        freed = self.run.freed
        for mm in mms:
            for vpn, entry in mm.anon_entries():
                if entry & KIND_MASK == MIGRATION:
                    raise Violation(WALK_MISSES_PTE, f"a migration entry stays behind at {self.place(mm, vpn)}")
            for vma in mm.vmas:
                if id(vma) in freed:
                    raise Violation(USE_AFTER_FREE, f"{self.run.name(vma)} was freed and is in the tree of its mm")
        for folio in kernel.mem.folios():
            if folio.mapcount and id(folio.mapping) in freed:
                raise Violation(
                    USE_AFTER_FREE,
                    f"{self.run.name(folio)} is mapped and names {self.run.name(folio.mapping)}, which was freed",
                )
        check_walks(kernel, mms, self)
        for mm in mms:
            self._check_contents(mm)
        for mm in mms:
            exit_mmap(mm)
        self._clean_up()
        check_gone(kernel)

    def _clean_up(self) -> None:
        """What ksmd and reclaim would do in their next pass: forget pages of processes that have gone, and free what
        lies in the swap cache for nobody"""
        kernel = self.kernel
        kernel.ksm.scan()
        for folio in list(kernel.swap.slot_of):
            folio.get()
            kernel.swap.folio_free_swap(folio)
            folio_put(kernel.mem, folio)

    def place(self, mm: Mm, vpn: int) -> str:
        return f"{page_name(vpn)} of {self._process(mm)}"

    def of(self, obj: Any) -> str:
        return self.run.name(obj)

    def _process(self, mm: Mm) -> str:
        return next((name for name, other in self.machine.mms.items() if other is mm), f"mm {mm.ident}")

    def _check_contents(self, mm: Mm) -> None:
        """What a process sees was written by itself or by an ancestor, to that page"""
        family = [mm]
        while family[-1] in self.machine.parents:
            family.append(self.machine.parents[family[-1]])
        for vpn, entry in mm.anon_entries():
            for k in range(512 if isinstance(mm.pgd[vpn >> 9], int) else 1):
                token = mm_peek(mm, vpn + k, entry + (k << ENTRY_SHIFT))
                if not token:
                    continue
                writers = self.machine.wrote.get(token, [])
                if not any(writer in family for writer, _ in writers):
                    raise Violation(
                        COW_ISOLATION,
                        f"{self._process(mm)} sees at {page_name(vpn + k)} what "
                        f"{', '.join(self._process(writer) for writer, _ in writers) or 'nobody'} wrote",
                    )

    def state(self) -> tuple[Any, ...]:
        """The final state in a form that does not depend on frame numbers and identities: for comparing explorers.
        To be asked for before :meth:`finish`."""
        numbers: dict[int, int] = {}
        found: list[Any] = []
        for name, mm in sorted(self.machine.mms.items()):
            found.append((name, [(v.vm_start, v.vm_end, v.vm_pgoff, v.vm_flags, v.anon_vma is None) for v in mm.vmas]))
            for vpn, entry in sorted(mm.anon_entries()):
                kind = entry & 15
                number = numbers.setdefault(entry >> ENTRY_SHIFT, len(numbers))
                found.append((vpn, kind, number, mm_peek(mm, vpn, entry)))
        found.append(tuple((slab.name, slab.live) for slab in self.kernel.slabs))
        return tuple(map(repr, found))


class Laboratory:
    """A world and a design, to be executed many times. A context manager: the model is watched inside, and Python's
    garbage collected, since what an execution leaves refers to itself.

    order: the lock order that its executions have shown
    """

    def __init__(self, world: World, make_design: Callable[[], Hooks]) -> None:
        self.world = world
        self.make_design = make_design
        self.order: dict[tuple[str, str], str] = {}
        self._watching: Any = None
        self._collect = True, gc.get_threshold()

    def __enter__(self) -> "Laboratory":
        design = self.make_design()
        self._watching = watching(getattr(design, "objects", ()))
        self._watching.__enter__()
        self._collect = gc.isenabled(), gc.get_threshold()
        gc.enable()
        gc.set_threshold(GARBAGE, *self._collect[1][1:])
        return self

    def __exit__(self, *error: Any) -> None:
        enabled, threshold = self._collect
        gc.set_threshold(*threshold)
        if not enabled:
            gc.disable()
        self._watching.__exit__(*error)

    def execute(self, report: bool = False) -> Execution:
        """A new execution, all CPUs at their first scheduling point. Raises Violation if the setup itself fails."""
        return Execution(self, report)
