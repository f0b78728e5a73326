# SPDX-License-Identifier: GPL-2.0-only
"""What explorers take and give."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rmaplab.check.engine import Step
from rmaplab.check.violation import Violation

if TYPE_CHECKING:
    from rmaplab.check.execution import Execution

__all__ = ["Budget", "Choice", "Found", "Result", "signature"]

Choice = tuple[int, int]
"""(CPU, outcome): which task goes on, and how that turns out: 0 = nothing fails."""


@dataclass(frozen=True, slots=True)
class Budget:
    """How long to look: a number of executions, seconds; None = no limit."""

    executions: int | None = None
    seconds: float | None = None

    def clock(self) -> Callable[[int], bool]:
        """A function of the number of executions so far: is the budget spent?"""
        end = None if self.seconds is None else time.monotonic() + self.seconds

        def spent(executions: int) -> bool:
            if self.executions is not None and executions >= self.executions:
                return True
            return end is not None and time.monotonic() >= end

        return spent


@dataclass(frozen=True, slots=True)
class Found:
    """A violation, and the choices that lead to it."""

    violation: Violation
    choices: tuple[Choice, ...]
    executions: int  # it was the how manieth


@dataclass(slots=True)
class Result:
    """What an explorer did.

    executions: complete ones; blocked: cut short because all that could follow was known (sleep sets)
    complete: every interleaving is covered
    found: the violations, the first of each name and text
    states: the final states, if asked for; signatures: the Mazurkiewicz traces, if asked for
    """

    executions: int = 0
    blocked: int = 0
    steps: int = 0
    seconds: float = 0.0
    complete: bool = False
    interrupted: bool = False
    found: list[Found] = field(default_factory=list)
    states: set[Any] = field(default_factory=set)
    signatures: set[Any] = field(default_factory=set)

    @contextmanager
    def exploring(self) -> Iterator[None]:
        """Measures the time; Ctrl-C ends the exploration with what there is."""
        start = time.monotonic()
        try:
            yield
        except KeyboardInterrupt:
            self.interrupted = True
        self.seconds = time.monotonic() - start

    def take(self, execution: "Execution", *, keep_states: bool = False, keep_signatures: bool = False) -> bool:
        """Count an execution that has come to its end, and check that end. True if it violates something new."""
        run = execution.run
        if keep_states and run.done() and run.violation is None:
            self.states.add(execution.state())
        violation = execution.finish()
        self.executions += 1
        self.steps += len(run.trace)
        if keep_signatures:
            self.signatures.add(signature(run.trace, len(run.tasks)))
        if violation is None or any(str(found.violation) == str(violation) for found in self.found):
            return False
        choices = tuple((step.task, step.outcome) for step in run.trace)
        self.found.append(Found(violation, choices, self.executions))
        return True


def signature(trace: list[Step], tasks: int) -> tuple[object, ...]:
    """The trace as a partial order: each task's steps with their clocks. Equal for executions that differ only in the
    order of independent steps."""
    steps: list[list[object]] = [[] for _ in range(tasks)]
    for step in trace:
        steps[step.task].append((step.text, step.outcome, tuple(step.clock)))
    return tuple(map(tuple, steps))
