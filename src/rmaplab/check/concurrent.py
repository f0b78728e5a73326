# SPDX-License-Identifier: GPL-2.0-only
"""Takes hooks out of a design, as :mod:`rmaplab.check.ablation`, but looks at worlds instead of histories: what breaks
when operations run at once?"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import permutations

from rmaplab.check.ablation import factory_for
from rmaplab.check.claims import Claim, Trial
from rmaplab.check.execution import Laboratory
from rmaplab.check.explore import dpor
from rmaplab.check.explore.result import Budget, Found, Result
from rmaplab.check.violation import Violation
from rmaplab.check.world import World, library
from rmaplab.designs.registry import design_names

__all__ = ["ConcurrentVerdict", "judge_concurrent", "repaired", "without_hooks", "worlds_for"]

_LEFT_OUT = {
    "never-fork": ("fork",),
    "no-remap": ("mremap",),
    "no-ksm": ("ksm",),
    "no-memory-failure": ("poison",),
}


@dataclass(frozen=True, slots=True)
class ConcurrentVerdict:
    """What becomes of a design without the hooks `dropped` in the worlds.

    world: the first in which an invariant breaks that holds with all hooks; None if there is none
    invariant, text: which, and what was found
    serial: does it also break there with one CPU after another, in some order? Else concurrency alone needs the hook
    worlds, executions: how many were looked at; proved: worlds of which every trace was
    """

    design: str
    dropped: tuple[int, ...]
    assume: tuple[str, ...]
    worlds: int
    executions: int
    proved: int
    world: str = ""
    invariant: str = ""
    text: str = ""
    serial: bool = False


def repaired(design: str) -> str:
    """The form of `design` that is right under concurrency."""
    name = f"{design}_locked"
    return name if name in design_names(repaired=True) else design


def worlds_for(dropped: Iterable[int], assume: Iterable[str]) -> list[World]:
    """The worlds of the library in which nothing happens that the restrictions exclude; those that are tied to one of
    the hooks first, small ones before large."""
    left_out = {name for restriction in assume for name in _LEFT_OUT.get(restriction, ())}
    tied = {f"hook {number}" for number in dropped}
    found = [
        world
        for world in library().values()
        if not any(op.name in left_out for ops in (world.setup, *world.cpus) for op in ops)
    ]
    return sorted(found, key=lambda world: (not tied & set(world.tied), world.thp != "never", world.operations()))


def _explore(world: World, design: str, dropped: frozenset[int], assume: frozenset[str], budget: Budget) -> Result:
    factory = factory_for(design, dropped, assume)
    with Laboratory(world, factory) as laboratory:
        try:
            return dpor.explore(laboratory, budget)
        except Violation as violation:  # in the setup already
            result = Result(executions=1)
            result.found.append(Found(violation, (), 1))
            return result


def _breaks_serially(world: World, design: str, dropped: frozenset[int], assume: frozenset[str]) -> bool:
    """One CPU after another, in each order"""
    for order in permutations(range(len(world.cpus))):
        with Laboratory(world, factory_for(design, dropped, assume)) as laboratory:
            try:
                execution = laboratory.execute()
            except Violation:
                return True
            run = execution.run
            while run.violation is None and (enabled := run.enabled()):
                execution.step(next(cpu for cpu in order if cpu in enabled))
            if execution.finish() is not None:
                return True
    return False


def without_hooks(design: str, dropped: Iterable[int], assume: Iterable[str], seconds: float) -> ConcurrentVerdict:
    """Look for a world that `design` breaks in without the hooks `dropped`; `seconds` for each world."""
    numbers, rules = frozenset(dropped), frozenset(assume)
    budget = Budget(seconds=seconds)
    executions = proved = count = 0
    for world in worlds_for(numbers, rules):
        count += 1
        result = _explore(world, design, numbers, rules, budget)
        executions += result.executions
        proved += result.complete
        if not result.found:
            continue
        if numbers and _explore(world, design, frozenset(), rules, budget).found:
            continue  # not for want of these hooks
        violation = result.found[0].violation
        serial = _breaks_serially(world, design, numbers, rules)
        return ConcurrentVerdict(
            design,
            tuple(sorted(numbers)),
            tuple(sorted(rules)),
            count,
            executions,
            proved,
            world.name,
            violation.name,
            violation.text,
            serial,
        )
    return ConcurrentVerdict(design, tuple(sorted(numbers)), tuple(sorted(rules)), count, executions, proved)


def judge_concurrent(claim: Claim, seconds: float) -> list[tuple[Trial, ConcurrentVerdict]]:
    """The trials of `claim`, on the forms that are right under concurrency."""
    return [
        (trial, without_hooks(repaired(trial.design), trial.dropped, trial.assume, seconds)) for trial in claim.trials
    ]
