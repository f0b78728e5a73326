# SPDX-License-Identifier: GPL-2.0-only
"""Takes hooks out of a design, as :mod:`rmaplab.check.ablation`, or a repair, but looks at worlds instead of histories:
what breaks when operations run at once?"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from itertools import permutations

from rmaplab.check.ablation import becomes_lazy, factory_for
from rmaplab.check.claims import Trial
from rmaplab.check.execution import Laboratory
from rmaplab.check.explore import dpor
from rmaplab.check.explore.result import Budget, Found, Result
from rmaplab.check.history import DesignFactory
from rmaplab.check.violation import Violation
from rmaplab.check.world import World, library
from rmaplab.designs.locked import REPAIRS
from rmaplab.designs.registry import design_names, make_design
from rmaplab.mm.hooks import Hooks

__all__ = ["ConcurrentVerdict", "repaired", "repairs_of", "trial_concurrent", "without", "without_repair", "worlds_for"]

_LEFT_OUT = {
    "never-fork": ("fork",),
    "no-remap": ("mremap",),
    "no-ksm": ("ksm",),
    "no-memory-failure": ("poison",),
}


@dataclass(frozen=True, slots=True)
class ConcurrentVerdict:
    """What becomes of a design without the hooks `dropped`, or without one `repair`, in the worlds.

    repair: of rmaplab.designs.locked.REPAIRS, or ""
    lazy: does anything become lazy without them? If not nothing can break, and nothing is saved
    world: one in which an invariant breaks that holds with all hooks; "" if there is none
    invariant, text: which, and what was found
    serial: does it break there with one CPU after another, in some order? False: so in no world, and concurrency alone
        needs the hooks
    worlds, executions: how many were explored; proved: worlds of which every trace was
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
    repair: str = ""
    lazy: bool = True


def repaired(design: str) -> str:
    """The form of `design` that is right under concurrency."""
    name = f"{design}_locked"
    return name if name in design_names(repaired=True) else design


def repairs_of(design: str) -> list[str]:
    """What `design` has of REPAIRS that the form which it repairs has not."""
    own = make_design(design)
    published = getattr(own, "repairs", None)
    if published is None:
        return []
    other = make_design(published)
    return [name for name in REPAIRS if getattr(own, name, False) and not getattr(other, name, False)]


def without_repair(design: str, repair: str) -> Hooks:
    """`design` as if it had not been repaired in this point."""
    made = make_design(design)
    setattr(made, repair, False)
    return made


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


def _explore(world: World, factory: DesignFactory, budget: Budget) -> Result:
    with Laboratory(world, factory) as laboratory:
        try:
            return dpor.explore(laboratory, budget)
        except Violation as violation:  # in the setup already
            result = Result(executions=1)
            result.found.append(Found(violation, (), 1))
            return result


def _breaks_serially(world: World, factory: DesignFactory) -> Violation | None:
    """What breaks if one CPU runs after another, in some order"""
    with Laboratory(world, factory) as laboratory:
        for order in permutations(range(len(world.cpus))):
            try:
                execution = laboratory.execute()
            except Violation as violation:
                return violation
            run = execution.run
            while run.violation is None and (enabled := run.enabled()):
                execution.step(next(cpu for cpu in order if cpu in enabled))
            found = execution.finish()
            if found is not None:
                return found
    return None


def without(
    design: str, dropped: Iterable[int], assume: Iterable[str], budget: Budget, repair: str = ""
) -> ConcurrentVerdict:
    """Look for a world that `design` breaks in without the hooks `dropped`, or without `repair`: first one CPU after
    another in each, then at once, with `budget` for each world."""
    numbers, rules = frozenset(dropped), frozenset(assume)
    whole = factory_for(design, frozenset(), rules)
    factory = partial(without_repair, design, repair) if repair else factory_for(design, numbers, rules)
    all_there = not numbers and not repair
    worlds = worlds_for(numbers, rules)
    lazy = all_there or becomes_lazy(factory)
    verdict = ConcurrentVerdict(design, tuple(sorted(numbers)), tuple(sorted(rules)), 0, 0, 0, repair=repair, lazy=lazy)
    for world in worlds:
        serially = _breaks_serially(world, factory)
        if serially is not None and (all_there or _breaks_serially(world, whole) is None):
            return replace(verdict, world=world.name, invariant=serially.name, text=serially.text, serial=True)
    for count, world in enumerate(worlds, 1):
        result = _explore(world, factory, budget)
        verdict = replace(
            verdict,
            worlds=count,
            executions=verdict.executions + result.executions,
            proved=verdict.proved + result.complete,
        )
        if result.found and (all_there or not _explore(world, whole, budget).found):
            violation = result.found[0].violation
            return replace(verdict, world=world.name, invariant=violation.name, text=violation.text)
    return verdict


def trial_concurrent(trial: Trial, budget: Budget) -> ConcurrentVerdict:
    """A trial of a claim, on the form of its design that is right under concurrency."""
    return without(repaired(trial.design), trial.dropped, trial.assume, budget)
