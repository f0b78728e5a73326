# SPDX-License-Identifier: GPL-2.0-only
"""Source-DPOR with sleep sets: one execution for each Mazurkiewicz trace.

P. A. Abdulla, S. Aronis, B. Jonsson, K. Sagonas: Source Sets: A Foundation for Optimal Dynamic Partial Order Reduction.
Journal of the ACM 64(4), 2017, algorithm 1. Locks as in section on disabling operations: an acquisition races with the
acquisitions of others, not with the release that let it go on. Two executions are of one trace if they differ only in
the order of steps that do not depend on each other (:mod:`rmaplab.check.footprint`).
"""

from dataclasses import dataclass, field

from rmaplab.check.engine import Clock, Run, Step, join
from rmaplab.check.execution import Execution, Laboratory
from rmaplab.check.explore.result import Budget, Result
from rmaplab.check.footprint import ACQUIRE_READ, ACQUIRE_WRITE, CONFLICTS, LOCK_MODES, Footprint, Location, independent

__all__ = ["explore"]


@dataclass(slots=True)
class _Node:
    """A point in the tree of executions: before a step.

    sleep: tasks whose next step need not be tried here, with its footprint
    todo: tasks to be tried here (the source set as far as known)
    task, outcome: what is being tried; outcomes: how many ways that step can go
    footprint: of the step, all outcomes together
    """

    enabled: list[int]
    sleep: dict[int, Footprint]
    todo: list[int]
    task: int
    outcome: int = 0
    outcomes: int = 1
    footprint: Footprint = field(default_factory=dict)


def explore(
    laboratory: Laboratory,
    budget: Budget,
    *,
    all_violations: bool = False,
    keep_states: bool = False,
    keep_signatures: bool = False,
) -> Result:
    """Execute every trace of the laboratory's world, or as many as the budget allows; stop at the first violation
    unless `all_violations`."""
    result = Result()
    spent = budget.clock()
    stack: list[_Node] = []
    with result.exploring():
        while not spent(result.executions + result.blocked):
            execution = laboratory.execute()
            whole = _follow(execution, stack)
            trace = execution.run.trace
            waiting = _waiting(execution.run)  # before the end of the execution lets them go
            if whole:
                new = result.take(execution, keep_states=keep_states, keep_signatures=keep_signatures)
                if new and not all_violations:
                    break
            else:
                execution.abandon()
                result.blocked += 1
                result.steps += len(trace)
            _add_races(stack, trace, waiting)
            if not _next(stack):
                result.complete = True
                break
    return result


def _waiting(run: Run) -> list[Step]:
    """What tasks wait for in vain, as steps: in a deadlock each would have been possible earlier."""
    steps = []
    for task in run.tasks:
        pending = task.pending
        if pending is not None and pending.lock is not None and not pending.lock.free_for(pending.write):
            clock = task.clock.copy()
            clock[task.index] += 1
            mode = ACQUIRE_WRITE if pending.write else ACQUIRE_READ
            footprint = {pending.lock.location: mode}
            steps.append(Step(task.index, pending.text, 0, 1, footprint, clock, task.clock, task.clock))
    return steps


def _follow(execution: Execution, stack: list[_Node]) -> bool:
    """Take the steps that `stack` says, then go on to the end. False if everything that could follow sleeps."""
    run = execution.run
    sleep: dict[int, Footprint] = {}
    last = -1
    for node in stack:
        step = execution.step(node.task, node.outcome)
        last = node.task
    if stack:
        node = stack[-1]
        _merge(node.footprint, step.footprint)
        node.outcomes = step.outcomes
        sleep = {task: fp for task, fp in node.sleep.items() if independent(fp, step.footprint)}
    while run.violation is None:
        enabled = run.enabled()
        if not enabled:
            return True
        awake = [task for task in enabled if task not in sleep]
        if not awake:
            return False
        task = last if last in awake else awake[0]
        node = _Node(enabled, sleep, [task], task)
        step = execution.step(task)
        node.footprint = dict(step.footprint)
        node.outcomes = step.outcomes
        stack.append(node)
        sleep = {other: fp for other, fp in sleep.items() if independent(fp, step.footprint)}
        last = task
    return True


def _merge(footprint: Footprint, other: Footprint) -> None:
    for location, mode in other.items():
        footprint[location] = footprint.get(location, 0) | mode


def _next(stack: list[_Node]) -> bool:
    """Go back to the deepest point where something is still to be tried."""
    while stack:
        node = stack[-1]
        if node.outcome + 1 < node.outcomes:
            node.outcome += 1
            return True
        node.sleep[node.task] = node.footprint
        for task in node.todo:
            if task not in node.sleep:
                node.task, node.outcome, node.outcomes, node.footprint = task, 0, 1, {}
                return True
        stack.pop()
    return False


# --- races


def _before(step: Step, clock: Clock) -> bool:
    """Did `step` happen before what has this clock?"""
    return clock[step.task] >= step.clock[step.task]


def _add_races(stack: list[_Node], trace: list[Step], waiting: list[Step]) -> None:
    """For each pair of racing steps, see to it that the second is tried before the first."""
    accesses: _Accesses = {}
    for j, step in enumerate(trace):
        for i in _races(trace, accesses, step):
            _reverse(stack, trace, i, j, step)
        for location in step.footprint:
            accesses.setdefault(location, {}).setdefault(step.task, []).append(j)
    for step in waiting:
        for i in _races(trace, accesses, step):
            _reverse(stack, trace, i, len(trace), step)


_Accesses = dict[Location, dict[int, list[int]]]
"""Location -> task -> its steps that touched it."""


def _races(trace: list[Step], accesses: _Accesses, step: Step) -> list[int]:
    """Earlier steps of others that conflict with `step` and are not ordered before it by anything else. What a lock
    that it waited for brought with it counts for all but the lock itself. Of each task and location the last one that
    conflicts is enough: those before it happened before it."""
    task = step.task
    at_lock: set[int] = set()
    elsewhere: set[int] = set()
    for location, mode in step.footprint.items():
        earlier = accesses.get(location)
        if earlier is None:
            continue
        clock, candidates = (step.before, at_lock) if mode & LOCK_MODES else (step.base, elsewhere)
        conflicts = CONFLICTS[mode]
        for other, steps in earlier.items():
            if other == task:
                continue
            for i in reversed(steps):
                if conflicts & trace[i].footprint[location]:
                    if not _before(trace[i], clock):
                        candidates.add(i)
                    break
    found: list[int] = []
    for candidates, clock in ((at_lock, step.before), (elsewhere, step.base)):
        order = clock.copy()
        for i in sorted(candidates, reverse=True):
            if not _before(trace[i], order):
                found.append(i)
                join(order, trace[i].clock)
    return found


def _reverse(stack: list[_Node], trace: list[Step], i: int, j: int, last: Step) -> None:
    """Make sure that some task is tried at step `i` with which step `last`, number `j`, comes before it: an
    initial of what follows without depending on step `i`."""
    node = stack[i]
    follow = [trace[k] for k in range(i + 1, j) if not _before(trace[i], trace[k].clock)]
    follow.append(last)
    initials: list[int] = []
    seen: set[int] = set()
    for position, step in enumerate(follow):
        if step.task in seen:
            continue
        seen.add(step.task)
        if not any(_before(earlier, step.clock) for earlier in follow[:position]):
            initials.append(step.task)
    if any(task in node.todo or task in node.sleep for task in initials):
        return
    for task in initials:
        if task in node.enabled:
            node.todo.append(task)
            return
    node.todo.extend(task for task in node.enabled if task not in node.todo)
