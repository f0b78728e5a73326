# SPDX-License-Identifier: GPL-2.0-only
"""Checks one design in one world: explores, shrinks what is found, and says what that proves."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from rmaplab.check.ablation import drop_hooks, implemented_hooks
from rmaplab.check.concurrent import repairs_of, without_repair
from rmaplab.check.counterexample import Counterexample
from rmaplab.check.execution import Laboratory
from rmaplab.check.explore import dfs, dpor, pct, random_walk
from rmaplab.check.explore.result import Budget, Result
from rmaplab.check.mutant import mutated
from rmaplab.check.mutants import MUTANTS
from rmaplab.check.reexecute import ImpossibleChoice, NondeterminismError, Observed, Seen
from rmaplab.check.replay_string import Replay, encode
from rmaplab.check.shrink_world import StoppableBudget, shrink
from rmaplab.check.story import Story, tell
from rmaplab.check.violation import DEADLOCK, STEP_BOUND, Violation
from rmaplab.check.world import World, library
from rmaplab.designs.registry import make_design
from rmaplab.errors import UserError
from rmaplab.mm.hooks import Hooks

__all__ = [
    "COUNTEREXAMPLE",
    "EXPLORERS",
    "MODEL_ERROR",
    "NO_BUG",
    "PROVED",
    "CheckResult",
    "Plan",
    "check_pair",
    "check_world",
    "made",
    "retell",
]

PROVED = "PROVED"
NO_BUG = "NO BUG FOUND"
COUNTEREXAMPLE = "COUNTEREXAMPLE"
MODEL_ERROR = "MODEL ERROR"

MAINLINE = "anon_vma"
EVERY = 100
"""One of so many executions is executed again: the same choices must give the same execution."""

EXPLORERS: dict[str, Callable[..., Result]] = {
    "dpor": dpor.explore,
    "pct": pct.explore,
    "dfs": partial(dfs.explore, keep_signatures=True),
    "random": random_walk.explore,
}
RANDOM = ("pct", "random")
"""Explorers that take a seed."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How to check.

    seconds, executions: budget of each world, None = no limit; shrink_seconds: for making a counterexample smaller
    """

    explorer: str = "dpor"
    seconds: float | None = None
    executions: int | None = None
    seed: int = 1
    shrink_seconds: float = 30.0
    every: int = EVERY


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What came out for one design in one world.

    traces: executions to the end: with `dpor` one for each Mazurkiewicz trace; blocked: cut short as redundant
    ended: why it ended: "complete", "violation", "seconds", "executions", "interrupted", "error"
    proved: number of traces if all were executed, else None
    error: what is wrong with the model, or the world (`bad_world`)
    """

    design: str
    world: str
    plan: Plan
    verdict: str
    traces: int = 0
    blocked: int = 0
    steps: int = 0
    seconds: float = 0.0
    ended: str = "error"
    proved: int | None = None
    counterexample: Counterexample | None = None
    story: Story | None = None
    error: str = ""
    bad_world: bool = False

    def rate(self) -> float:
        """Executions per second, blocked ones included."""
        return (self.traces + self.blocked) / self.seconds if self.seconds else 0.0

    def _executions(self) -> str:
        return f"{self.traces:,} execution{'s' if self.traces != 1 else ''}"

    def sentence(self) -> str:
        """The verdict in full."""
        if self.verdict == PROVED:
            return f"{PROVED} (all {self.proved:,} traces of world {self.world})"
        if self.verdict == NO_BUG:
            done = self._executions()
            if self.ended == "interrupted":
                return f"{NO_BUG} (budget): interrupted after {done}"
            limit = f"{self.plan.seconds:g} s" if self.ended == "seconds" else f"{self.plan.executions:,} executions"
            return f"{NO_BUG} (budget): {done}; its budget was {limit}"
        if self.verdict == COUNTEREXAMPLE and self.counterexample is not None:
            return f"{COUNTEREXAMPLE}: {self.counterexample.invariant}, after {self._executions()}"
        return f"{self.verdict}: {self.error}"


@contextmanager
def made(name: str) -> Iterator[Callable[[], Hooks]]:
    """What makes the design `name`; or, if that is `design~mutant`, the design with that mistake; `design~without-4+5`:
    without these hooks; `design~without-REPAIR`: without what repairs it. Raises UserError."""
    design, tilde, mistake = name.partition("~")
    if not tilde:
        make_design(name)
        yield partial(make_design, name)
        return
    hooks = re.fullmatch(r"without-([0-9]+(?:\+[0-9]+)*)", mistake)
    if hooks is not None:
        numbers = [int(number) for number in hooks[1].split("+")]
        own = implemented_hooks(make_design(design))
        if not set(numbers) <= set(own):
            raise UserError(f"design {design!r} has the hooks {', '.join(map(str, own))}; {mistake!r} names others")
        yield lambda: drop_hooks(make_design(design), numbers)
        return
    repair = mistake.removeprefix("without-")
    if repair != mistake and repair in repairs_of(design):
        yield partial(without_repair, design, repair)
        return
    known = {mutant.name: mutant for mutant in MUTANTS if mutant.design == design}
    if mistake not in known:
        raise UserError(f"no mutant {mistake!r} of design {design!r}; known are {', '.join(known) or 'none'}")
    with mutated(known[mistake]) as make:
        yield make


def check_world(world: World) -> None:
    """Is it a world? Under mainline, its setup must succeed, and each of its CPUs alone come to an end, as must all of
    them one after another. Raises UserError."""
    alone = [replace(world, cpus=(operations,)) for operations in world.cpus]
    with Laboratory(world, lambda: make_design(MAINLINE)) as laboratory:
        for number, part in enumerate([*alone, world]):
            who = f"CPU{number} alone" if number < len(alone) else "its CPUs, one after another"
            _come_to_an_end(world.name, who, Laboratory(part, laboratory.make_design))


def _come_to_an_end(name: str, who: str, laboratory: Laboratory) -> None:
    try:
        execution = laboratory.execute()
    except Violation as violation:
        raise UserError(f"world {name!r}: its setup fails: {violation}") from violation
    run = execution.run
    while run.violation is None and (enabled := run.enabled()):
        execution.step(enabled[0])
    if run.violation is None and not run.done():
        run.check_deadlock()
    found = run.violation
    execution.abandon()
    if found is not None and found.name == DEADLOCK:
        raise UserError(f"world {name!r} deadlocks by itself: {who}: {found.text}")
    if found is not None and found.name == STEP_BOUND:
        raise UserError(f"world {name!r} does not end: {who}: {found.text}")


def check_pair(design: str, world: World, plan: Plan, stop: Callable[[], bool] = lambda: False) -> CheckResult:
    """Check `design` in `world`."""
    failed = partial(CheckResult, design, world.name, plan, MODEL_ERROR)
    try:
        check_world(world)
    except UserError as error:
        return failed(error=str(error), bad_world=True)
    except Exception as error:
        return failed(error=f"{MAINLINE}: {_line(error)}")
    try:
        with made(design) as make, Laboratory(world, make) as laboratory:
            return _check(design, world, plan, stop, make, laboratory)
    except NondeterminismError as error:
        return failed(error=f"nondeterminism: {error}")
    except ImpossibleChoice as error:
        return failed(error=f"nondeterminism: a counterexample cannot be executed again: {error}")
    except Exception as error:  # of the model, or of a design: the other worlds go on
        return failed(error=_line(error))


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _check(
    design: str,
    world: World,
    plan: Plan,
    stop: Callable[[], bool],
    factory: Callable[[], Hooks],
    laboratory: Laboratory,
) -> CheckResult:
    bad: list[Seen] = []

    def observe(seen: Seen) -> None:
        if seen.run.violation is not None:
            bad.append(seen)

    observed: Any = Observed(laboratory, observe, plan.every)
    budget = StoppableBudget(plan.executions, plan.seconds, stop)
    options = {"seed": plan.seed} if plan.explorer in RANDOM else {}
    try:
        result = EXPLORERS[plan.explorer](observed, budget, **options)
    except Violation as violation:
        schedule_of_nothing = Counterexample(design, world, world, 0, violation.name, violation.text, (), (), "")
        return _told(design, world, plan, Result(), schedule_of_nothing, laboratory)
    observed.settle()
    if bad:
        observed.confirm(bad[0])
        violation_found = bad[0].run.violation
        assert violation_found is not None
        smaller, schedule = shrink(
            world, bad[0], lambda other: Laboratory(other, factory), seconds=plan.shrink_seconds, stop=stop
        )
        found = Counterexample(
            design,
            smaller,
            world,
            result.executions,
            schedule.violation.name,
            schedule.violation.text,
            schedule.choices,
            schedule.order,
            "",
        )
        return _told(design, world, plan, result, found, Laboratory(smaller, factory))
    if result.complete:
        ended, verdict = "complete", PROVED
        proved = len(result.signatures) if plan.explorer == "dfs" else result.executions
        return _result(design, world, plan, result, verdict, ended, proved=proved)
    if stop() or result.interrupted:
        ended = "interrupted"
    else:
        ended = "executions" if Budget(plan.executions).clock()(result.executions + result.blocked) else "seconds"
    return _result(design, world, plan, result, NO_BUG, ended)


def _result(
    design: str, world: World, plan: Plan, result: Result, verdict: str, ended: str, **more: Any
) -> CheckResult:
    return CheckResult(
        design,
        world.name,
        plan,
        verdict,
        result.executions,
        result.blocked,
        result.steps,
        result.seconds,
        ended,
        **more,
    )


def _told(
    design: str, world: World, plan: Plan, result: Result, found: Counterexample, laboratory: Laboratory
) -> CheckResult:
    """The counterexample with its replay string and story"""
    replay = encode(Replay(design, found.world, found.choices, found.order), library())
    found = replace(found, replay=replay)
    story = tell(laboratory, design, found.choices, found.order, replay)
    return _result(design, world, plan, result, COUNTEREXAMPLE, "violation", counterexample=found, story=story)


def retell(replay: Replay, text: str) -> Story:
    """The story of a replay string. Raises UserError if its choices cannot be made."""
    with made(replay.design) as make, Laboratory(replay.world, make) as laboratory:
        try:
            return tell(laboratory, replay.design, replay.choices, replay.order, text)
        except ImpossibleChoice as error:
            raise UserError(
                f"the replay string does not fit design {replay.design!r} as it is here: {error}"
            ) from error
