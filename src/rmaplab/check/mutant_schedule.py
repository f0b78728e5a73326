# SPDX-License-Identifier: GPL-2.0-only
"""A mutant's story as a schedule, derived by hand, and its execution.

A schedule is a list of turns, (CPU, until): that CPU goes on until what it is about to do is

- ``"lock ptl"``: a step whose text begins so;
- ``"read in rmap_walk_anon"``: such a step inside of this kernel function;
- ``"lock ptl #2"``: the second such step of the turn;
- ``"allocate anon_vma_chain fails"``: such an allocation, which then is made, and fails;
- ``""``: none: until it has ended, waits for a lock, or something is violated.

A turn has a step at least, so that a CPU that stands before such a step goes on to the next one. What is violated when
all have ended counts, too, if the last turn leads there.
"""

import re
from collections.abc import Sequence
from typing import Any

from rmaplab.check.engine import Pending, Run
from rmaplab.check.execution import Execution

__all__ = ["ScheduleError", "Turn", "follow"]

Turn = tuple[int, str]
_UNTIL = re.compile(r"(?P<text>.*?)(?: in (?P<function>\w+))?(?: #(?P<number>\d+))?(?P<fails> fails)?")


class ScheduleError(ValueError):
    """A turn cannot be made as it is written."""


def follow(laboratory: Any, schedule: Sequence[Turn], *, anyway: bool = False) -> Run:
    """Execute `schedule`; the violation, if there is one, is in what is returned.

    anyway: where a turn does not come to its point, go on with the next one, and after the last one let all come to an
        end: the schedule of a mistake where that is not made
    """
    execution: Execution = laboratory.execute(report=True)
    run = execution.run
    try:
        for cpu, until in schedule:
            if not _turn(execution, cpu, until) and not anyway:
                raise ScheduleError(f"CPU{cpu} does not come to {until or 'any step'!r}")
        while anyway and run.violation is None and run.enabled():
            execution.step(run.enabled()[0])
        if run.violation is None and not run.enabled():
            execution.finish()
    finally:
        execution.abandon()
    return run


def _turn(execution: Execution, cpu: int, until: str) -> bool:
    """Did it come to its point?"""
    match = _UNTIL.fullmatch(until)
    assert match is not None
    text, function, number, fails = match.groups()
    left = int(number or 1)
    run = execution.run
    steps = 0
    while run.violation is None and cpu in run.enabled():
        execution.step(cpu)
        steps += 1
        pending = run.tasks[cpu].pending
        if not until or pending is None or not _is(pending, text, function):
            continue
        left -= 1
        if not left:
            if fails:
                execution.step(cpu, 1)
            return True
    return not until and steps > 0


def _is(pending: Pending, text: str, function: str | None) -> bool:
    return pending.text.startswith(text) and (function is None or function in pending.where)
