# SPDX-License-Identifier: GPL-2.0-only
"""A mutant: one deliberate mistake in a design or in the model of mm, which the checker must find.

A mistake is declared as a change of a few lines to a fresh design object, or to a function of the model, which is put
back afterwards. Most leave a lock out (:func:`without`); the list is in :mod:`rmaplab.check.mutants`.
"""

import importlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from inspect import isgenerator
from typing import Any

from rmaplab.check.counterexample import simplest, sooner, steps_first
from rmaplab.check.execution import Laboratory
from rmaplab.check.explore import dpor, pct, random_walk
from rmaplab.check.explore.result import Budget, Choice, Result
from rmaplab.check.model_locks import CheckedLocks
from rmaplab.check.mutant_schedule import Turn
from rmaplab.check.reexecute import Observed, Seen
from rmaplab.check.violation import Violation
from rmaplab.check.world import World
from rmaplab.designs.registry import make_design
from rmaplab.mm.hooks import Hooks

__all__ = [
    "EXPLORERS",
    "Finding",
    "Mutant",
    "Patch",
    "find_mutant",
    "mutated",
    "patch",
    "set_to",
    "without",
    "without_hook",
]

EXPLORERS: dict[str, Callable[[Laboratory, Budget], Result]] = {
    "dpor": dpor.explore,
    "pct": pct.explore,
    "random": random_walk.explore,
}

Change = Callable[[Any], None]
"""What is done to a fresh design object."""


@dataclass(frozen=True, slots=True)
class Patch:
    """A function of the model, or what a class says of itself, that is replaced.

    module: in which the name (``Class.name``, too) is looked up; make: from the original to its replacement
    """

    module: str
    name: str
    make: Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Mutant:
    """One mistake.

    design: in which it is made; text: what is wrong
    story: how it goes wrong, derived by hand; schedule: the story in the first of the worlds, step by step
    change, patches: the mistake itself; worlds: in each of these it must be found
    historic: the commit that mended it in Linux
    """

    name: str
    design: str
    text: str
    story: str
    schedule: tuple[Turn, ...]
    worlds: tuple[str, ...]
    change: Change | None = None
    patches: tuple[Patch, ...] = ()
    historic: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """What became of a mutant in a world.

    executions: until it was found, or all that were made in vain
    complete: every interleaving was tried
    invariant: that it violates, "" if it was not found; text: what was found
    steps: scheduling points of each CPU in the counterexample, as simple as it could be made
    """

    mutant: str
    design: str
    historic: str
    world: str
    explorer: str
    executions: int
    seconds: float
    complete: bool
    invariant: str
    text: str
    steps: tuple[int, ...]


# --- leaving locks out

_LOCKS = tuple(
    name for name in vars(CheckedLocks) if not name.startswith("_") and name not in ("release", "rcu_read", "lockless")
)
_RETURN_NOTHING = ("anon_vma_drain", "free_pgtables", "vma_start_write")
_left_out: ContextVar[tuple[str, ...]] = ContextVar("left_out", default=())
"""Locks that are not taken now; each task, being a greenlet, has a value of its own."""


def _may_be_left_out(name: str) -> Callable[[Any], Any]:
    def make(original: Any) -> Any:
        def method(self: CheckedLocks, *args: Any) -> Any:
            if name in _left_out.get():
                return None if name in _RETURN_NOTHING else nullcontext()
            return original(self, *args)

        return method

    return make


@contextmanager
def _leaving_out(locks: tuple[str, ...]) -> Iterator[None]:
    token = _left_out.set(locks)
    try:
        yield
    finally:
        _left_out.reset(token)


def _iterate(items: Any, locks: tuple[str, ...]) -> Iterator[Any]:
    """A generator whose own code takes no such lock, while that of its user does"""
    with closing(items):
        while True:
            with _leaving_out(locks):
                try:
                    item = next(items)
                except StopIteration:
                    return
            yield item


def _lockless(function: Any, locks: tuple[str, ...]) -> Any:
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        with _leaving_out(locks):
            result = function(*args, **kwargs)
        return _iterate(result, locks) if isgenerator(result) else result

    return wrapped


def without(method: str, *locks: str) -> Change:
    """`method` of the design does not take these locks (methods of :class:`rmaplab.mm.locks.CountingLocks`)."""

    def change(design: Any) -> None:
        setattr(design, method, _lockless(getattr(design, method), locks))

    return change


def without_hook(*methods: str) -> Change:
    """These methods of the design do nothing."""

    def change(design: Any) -> None:
        for method in methods:
            setattr(design, method, lambda *args: None)

    return change


def set_to(name: str, value: Any) -> Change:
    """What the design says of itself is replaced."""

    def change(design: Any) -> None:
        setattr(design, name, value)

    return change


def patch(module: str, name: str, *locks: str) -> Patch:
    """A function of the model does not take these locks."""
    return Patch(f"rmaplab.mm.{module}", name, lambda original: _lockless(original, locks))


# --- the mistake made, and undone


@contextmanager
def mutated(mutant: Mutant) -> Iterator[Callable[[], Hooks]]:
    """Make the mistake; yields what makes the design."""
    kind: Any = type(make_design(mutant.design))

    def make() -> Hooks:
        design = kind()
        if mutant.change is not None:
            mutant.change(design)
        return design  # type: ignore[no-any-return]

    saved: list[tuple[Any, str, Any]] = []
    try:
        for name in _LOCKS:
            saved.append((CheckedLocks, name, vars(CheckedLocks)[name]))
            setattr(CheckedLocks, name, _may_be_left_out(name)(vars(CheckedLocks)[name]))
        for wrong in mutant.patches:
            owner: Any = importlib.import_module(wrong.module)
            *path, name = wrong.name.split(".")
            for part in path:
                owner = getattr(owner, part)
            original = getattr(owner, name)
            saved.append((owner, name, original))
            setattr(owner, name, wrong.make(original))
        yield make
    finally:
        for place, name, original in reversed(saved):
            setattr(place, name, original)


# --- is it found?

MORE = 150
"""Executions beyond the first that is found, among which a shorter counterexample is looked for."""


def find_mutant(mutant: Mutant, world: World, explorer: str, budget: Budget, *, simplify: float = 2.0) -> Finding:
    """Look for `mutant` in `world` (one of its own, or another).

    simplify: seconds to spend on a shorter counterexample, which may violate another invariant than the first one
    """
    explore = EXPLORERS[explorer]
    with mutated(mutant) as make, Laboratory(world, make) as laboratory:
        violating: list[Seen] = []
        observed: Any = Observed(laboratory, lambda seen: violating.append(seen) if seen.run.violation else None)
        start = time.monotonic()
        try:
            result = explore(observed, budget)
        except Violation as violation:  # the setup alone shows it
            return _finding(mutant, world, explorer, 0, time.monotonic() - start, True, violation, ())
        seconds = time.monotonic() - start
        if not result.found:
            return _finding(mutant, world, explorer, result.executions, seconds, result.complete, None, ())
        found = result.found[0]
        shown, choices = found.violation, found.choices
        if simplify:
            dpor.explore(observed, Budget(MORE, simplify / 2), all_violations=True)
            observed.settle()
            shortest = simplest(laboratory, violating, None, time.monotonic() + simplify / 2, steps_first)
            if shortest is not None:
                shortest = sooner(laboratory, shortest, steps_first)
                shown, choices = shortest.violation, shortest.choices
    return _finding(mutant, world, explorer, found.executions, seconds, False, shown, choices)


def _finding(
    mutant: Mutant,
    world: World,
    explorer: str,
    executions: int,
    seconds: float,
    complete: bool,
    violation: Violation | None,
    choices: Sequence[Choice],
) -> Finding:
    steps = tuple(sum(1 for task, _ in choices if task == cpu) for cpu in range(len(world.cpus)))
    name, text = ("", "") if violation is None else (violation.name, violation.text)
    return Finding(
        mutant.name,
        mutant.design,
        mutant.historic,
        world.name,
        explorer,
        executions,
        seconds,
        complete,
        name,
        text,
        steps,
    )
