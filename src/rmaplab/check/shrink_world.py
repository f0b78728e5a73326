# SPDX-License-Identifier: GPL-2.0-only
"""Makes a counterexample smaller: first the world (fewer CPUs, operations, pages and options, as long as `dpor` finds
the same invariant violated), then its schedule (fewer switches of the CPU, :mod:`rmaplab.check.counterexample`)."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from rmaplab.check.counterexample import Schedule, simplest
from rmaplab.check.explore import dpor
from rmaplab.check.explore.result import Budget
from rmaplab.check.ops import Operation, parse_operation
from rmaplab.check.reexecute import Observed, Seen
from rmaplab.check.violation import LOCK_ORDER, Violation
from rmaplab.check.world import World

__all__ = ["StoppableBudget", "shrink", "smaller_worlds"]

TRY_SECONDS = 2.0
"""For each smaller world."""
ENOUGH = 300
"""Executions that violate the invariant, among which the simplest is looked for."""


@dataclass(frozen=True, slots=True)
class StoppableBudget(Budget):
    """A budget that `stop` also ends: asked before each execution."""

    stop: Callable[[], bool] = lambda: False

    def clock(self) -> Callable[[int], bool]:
        spent = Budget.clock(self)
        return lambda executions: self.stop() or spent(executions)


@dataclass(slots=True)
class _Search:
    """Collects the executions that violate one invariant."""

    name: str
    enough: int
    stop: Callable[[], bool]
    found: list[Seen] = field(default_factory=list)

    def observe(self, seen: Seen) -> None:
        violation = seen.run.violation
        if violation is not None and violation.name == self.name:
            self.found.append(seen)

    def run(self, laboratory: Any, seconds: float) -> list[Seen]:
        """Explore until there are enough, or the time is over."""
        observed: Any = Observed(laboratory, self.observe)

        def stop() -> bool:
            observed.settle()
            return len(self.found) >= self.enough or self.stop()

        try:
            dpor.explore(observed, StoppableBudget(seconds=seconds, stop=stop), all_violations=True)
        except Violation:
            return []  # the setup itself
        observed.settle()
        return self.found


def smaller_worlds(world: World) -> Iterator[World]:
    """Worlds with a little less, the greatest step first."""
    for cpu in range(len(world.cpus)):
        if len(world.cpus) > 1:
            yield replace(world, cpus=world.cpus[:cpu] + world.cpus[cpu + 1 :])
    for cpu, operations in enumerate(world.cpus):
        for index in reversed(range(len(operations))):
            yield world.without(cpu, index)
    for index in reversed(range(len(world.setup))):
        yield world.without(-1, index)
    for change in ({"reuse": False}, {"thp": "never"}, {"fail": 0}, {"tryfail": 0}):
        smaller = replace(world, **change)
        if smaller != world:
            yield smaller
    for index, operation in enumerate(world.setup):
        for fewer in _fewer_pages(operation):
            yield replace(world, setup=(*world.setup[:index], fewer, *world.setup[index + 1 :]))
    for cpu, operations in enumerate(world.cpus):
        for index, operation in enumerate(operations):
            for fewer in _fewer_pages(operation):
                changed = (*operations[:index], fewer, *operations[index + 1 :])
                yield replace(world, cpus=(*world.cpus[:cpu], changed, *world.cpus[cpu + 1 :]))


def _fewer_pages(operation: Operation) -> Iterator[Operation]:
    """Operations on a range: their third word counts its pages"""
    if operation.name not in ("mmap", "munmap", "mprotect", "mremap", "madvise"):
        return
    count = operation.args[1]
    words = operation.text.rpartition(":")[2].split()
    for fewer in sorted({1, count // 2, count - 1} - {0, count}):
        yield parse_operation(" ".join([f"{operation.process}:", *words[:2], str(fewer), *words[3:]]))


def shrink(
    world: World,
    found: Seen,
    laboratory_for: Callable[[World], Any],
    *,
    seconds: float,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[World, Schedule]:
    """The smallest world and simplest schedule found in `seconds` that violate what `found`, an execution of `world`,
    violates. Half of the time goes to each."""
    assert found.run.violation is not None
    name = found.run.violation.name
    end = time.monotonic() + seconds
    half = end - seconds / 2
    best = [found]
    changed = True
    while changed and time.monotonic() < half and not stop():
        changed = False
        for smaller in smaller_worlds(world):
            left = half - time.monotonic()
            if left <= 0 or stop():
                break
            seen = _Search(name, 1, stop).run(laboratory_for(smaller), min(left, TRY_SECONDS))
            if seen:
                world, best, changed = smaller, seen, True
                break
    laboratory = laboratory_for(world)
    left = max(end - time.monotonic(), seconds / 4)
    more = _Search(name, ENOUGH, stop).run(laboratory, left / 2)
    schedule = simplest(laboratory, [*best, *more], name, time.monotonic() + left / 2)
    if schedule is None:
        choices = tuple((step.task, step.outcome) for step in best[0].run.trace)
        assert best[0].run.violation is not None
        order = tuple(best[0].order) if name == LOCK_ORDER else ()
        schedule = Schedule(choices, best[0].run.violation, order)
    return world, schedule
