# SPDX-License-Identifier: GPL-2.0-only
"""A counterexample, and how to make its schedule simpler: the same steps, or fewer, with fewer switches of the CPU."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, groupby, pairwise
from typing import Any

from rmaplab.check.engine import Step
from rmaplab.check.explore.result import Choice
from rmaplab.check.reexecute import ImpossibleChoice, Order, Seen, choices_of, reexecute
from rmaplab.check.violation import LOCK_ORDER, Violation
from rmaplab.check.world import World

__all__ = [
    "Counterexample",
    "Schedule",
    "fewest_switches",
    "simplest",
    "sooner",
    "steps_first",
    "switches",
    "switches_first",
]


@dataclass(frozen=True, slots=True)
class Schedule:
    """Choices, what they violate, and the lock order that must be known from other executions."""

    choices: tuple[Choice, ...]
    violation: Violation
    order: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Counterexample:
    """What was found: ready to be told, sent between processes, and reproduced.

    world: as shrunk; original: in which it was found, after how many executions
    choices: none if the setup alone violates the invariant
    order: pairs of lock kinds that other executions had shown (only for `lock-order`)
    replay: the string that reproduces it
    """

    design: str
    world: World
    original: World
    executions: int
    invariant: str
    text: str
    choices: tuple[Choice, ...]
    order: tuple[tuple[str, str], ...]
    replay: str


def switches(choices: Sequence[Choice]) -> int:
    """How often another CPU goes on than before."""
    return sum(1 for one, other in pairwise(choices) if one[0] != other[0])


Cost = Callable[[Sequence[Choice]], tuple[int, int, int]]


def _failures(choices: Sequence[Choice]) -> int:
    return sum(1 for _, outcome in choices if outcome)


def switches_first(choices: Sequence[Choice]) -> tuple[int, int, int]:
    """Simple to read: the fewest switches, then failures, then steps."""
    return switches(choices), _failures(choices), len(choices)


def steps_first(choices: Sequence[Choice]) -> tuple[int, int, int]:
    """Short: the fewest failures, then steps, then switches."""
    return _failures(choices), len(choices), switches(choices)


def simplest(
    laboratory: Any, executions: Sequence[Seen], name: str | None, until: float, cost: Cost = switches_first
) -> Schedule | None:
    """Of executions that violate `name` (None: anything), and all that differ from one of them only in the order of
    independent steps or in steps that do not matter, the one that costs least. What is returned was executed. None if
    nothing could be reproduced until the time `until`."""
    candidates: dict[tuple[Choice, ...], Order] = {}
    for seen in executions:
        for choices in _variants(seen):
            if choices or not seen.run.trace:
                candidates.setdefault(choices, seen.order)
    for choices, order in sorted(candidates.items(), key=lambda item: cost(item[0])):
        schedule = _confirm(laboratory, choices, order, name)
        if schedule is not None:
            return _cut(laboratory, schedule, order, until)
        if time.monotonic() >= until:
            break
    return None


def _variants(seen: Seen) -> list[tuple[Choice, ...]]:
    """The execution itself; all of its steps in another order; and only those before its last one"""
    trace = seen.run.trace
    found = [choices_of(seen.run)]
    if trace:
        whole = [sum(1 for step in trace if step.task == task) for task in range(len(seen.run.tasks))]
        last = trace[-1]
        found.append(fewest_switches(trace, whole, None))
        found.append(fewest_switches(trace, whole, last.task))
        found.append(fewest_switches(trace, last.clock, last.task))
    return found


def fewest_switches(trace: Sequence[Step], counts: Sequence[int], last: int | None) -> tuple[Choice, ...]:
    """The first `counts` steps of each task, in an order with the fewest switches that keeps every step behind those
    that happen before it. last: the task whose step comes last.

    Each task goes on as long as it can: what could follow a shorter run can follow a longer one.
    """
    by_task = [[step for step in trace if step.task == task][:count] for task, count in enumerate(counts)]
    total = sum(map(len, by_task))
    level: dict[tuple[int, ...], list[int]] = {(0,) * len(by_task): []}  # places -> the tasks that ran, in order
    seen = set(level)
    while level:
        following: dict[tuple[int, ...], list[int]] = {}
        for place, runs in level.items():
            if sum(place) == total:
                return _choices(by_task, runs)
            for task in range(len(by_task)):
                there = _run(by_task, place, task, last)
                if there != place and there not in seen:
                    seen.add(there)
                    following[there] = [*runs, *[task] * (there[task] - place[task])]
        level = following
    return ()


def _run(by_task: list[list[Step]], place: tuple[int, ...], task: int, last: int | None) -> tuple[int, ...]:
    """Where all are after `task` went on as long as it can"""
    steps = by_task[task]
    others = [other for other in range(len(by_task)) if other != task]
    end = len(steps)
    if task == last and any(place[other] < len(by_task[other]) for other in others):
        end -= 1
    done = place[task]
    while done < end and all(steps[done].clock[other] <= place[other] for other in others):
        done += 1
    return (*place[:task], done, *place[task + 1 :])


def _choices(by_task: list[list[Step]], runs: Sequence[int]) -> tuple[Choice, ...]:
    steps = [iter(of_task) for of_task in by_task]
    return tuple((task, next(steps[task]).outcome) for task in runs)


def sooner(laboratory: Any, schedule: Schedule, cost: Cost) -> Schedule:
    """Let a CPU's turn come before the one ahead of it, as long as something is violated then, at less cost."""
    best = schedule
    i = 0
    while True:
        turns = [list(turn) for _, turn in groupby(best.choices, key=lambda choice: choice[0])]
        if i + 1 >= len(turns):
            return best
        turns[i : i + 2] = turns[i + 1], turns[i]
        swapped = _as_far(laboratory, tuple(chain.from_iterable(turns)))
        order = {pair: laboratory.order[pair] for pair in best.order}
        found = _confirm(laboratory, swapped, order, None)
        if found is not None and cost(found.choices) < cost(best.choices):
            best, i = found, 0
        else:
            i += 1


def _as_far(laboratory: Any, choices: Sequence[Choice]) -> tuple[Choice, ...]:
    """Those of `choices` that can be made, up to a violation"""
    execution = laboratory.execute()
    run = execution.run
    for task, outcome in choices:
        if run.violation is not None:
            break
        if task in run.enabled() and outcome < run.tasks[task].pending.outcomes:
            execution.step(task, outcome)
    execution.abandon()
    return choices_of(run)


def _confirm(laboratory: Any, choices: tuple[Choice, ...], order: Order, name: str | None) -> Schedule | None:
    """Does it happen? Without what other executions have shown, if that is possible"""
    needed = dict(order) if name in (LOCK_ORDER, None) else {}
    for known in ({}, needed) if needed else ({},):
        try:
            run = reexecute(laboratory, choices, order=known)
        except (ImpossibleChoice, Violation):
            continue
        if run.violation is not None and name in (run.violation.name, None):
            return Schedule(choices_of(run), run.violation, tuple(known))
    return None


def _cut(laboratory: Any, schedule: Schedule, order: Order, until: float) -> Schedule:
    """Take away, CPU by CPU, steps before the last one that it does without: the latest first"""
    if not schedule.choices:
        return schedule
    last = schedule.choices[-1][0]
    for task in sorted({task for task, _ in schedule.choices} - {last}):
        while time.monotonic() < until:
            places = [i for i, choice in enumerate(schedule.choices) if choice[0] == task]
            if not places:
                break
            i = places[-1]
            shorter = _confirm(
                laboratory, schedule.choices[:i] + schedule.choices[i + 1 :], order, schedule.violation.name
            )
            if shorter is None or len(shorter.choices) >= len(schedule.choices):
                break
            schedule = shorter
    if schedule.order:
        schedule = _fewer_pairs(laboratory, schedule, order)
    return schedule


def _fewer_pairs(laboratory: Any, schedule: Schedule, order: Order) -> Schedule:
    """Only the pairs of the lock order that the cycle needs"""
    pairs = list(schedule.order)
    for pair in schedule.order:
        rest = {p: order[p] for p in pairs if p != pair}
        again = reexecute(laboratory, schedule.choices, order=rest, partial=True)
        if again.violation is not None and again.violation.name == schedule.violation.name:
            pairs.remove(pair)
    return Schedule(schedule.choices, schedule.violation, tuple(pairs))
