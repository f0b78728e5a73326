# SPDX-License-Identifier: GPL-2.0-only
"""Executes given choices, and looks for uncontrolled nondeterminism: the same choices must give the same execution."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rmaplab.check.engine import Run, Step
from rmaplab.check.explore.result import Choice
from rmaplab.check.violation import Violation

__all__ = ["ImpossibleChoice", "NondeterminismError", "Observed", "choices_of", "reexecute"]

Order = dict[tuple[str, str], str]


class ImpossibleChoice(Exception):
    """A choice that cannot be made where it stands."""


class NondeterminismError(Exception):
    """An error of the model: the same choices gave two executions."""


def choices_of(run: Run) -> tuple[Choice, ...]:
    """What was chosen in an execution."""
    return tuple((step.task, step.outcome) for step in run.trace)


def reexecute(
    laboratory: Any,
    choices: Sequence[Choice],
    *,
    order: Order | None = None,
    report: bool = False,
    before_end: Callable[[Any], None] | None = None,
    partial: bool = False,
) -> Run:
    """Execute `choices` and check the end. They must lead to it, unless `partial`.

    order: the lock order learned before; before_end: called with the execution when all choices are made
    Raises ImpossibleChoice, and Violation if the setup itself fails.
    """
    kept: Order | None = getattr(laboratory, "order", None)
    if kept is not None:
        laboratory.order = dict(order or {})
    try:
        execution = laboratory.execute(report)
        run: Run = execution.run
        try:
            for number, (task, outcome) in enumerate(choices, 1):
                _check_choice(run, number, task, outcome)
                execution.step(task, outcome)
            if not partial and run.violation is None and run.enabled():
                raise ImpossibleChoice(f"the execution goes on after the last of {len(choices)} choices")
            if before_end is not None:
                before_end(execution)
        except ImpossibleChoice:
            execution.abandon()
            raise
        if partial and run.violation is None and run.enabled():
            execution.abandon()
        else:
            execution.finish()
        return run
    finally:
        if kept is not None:
            laboratory.order = kept


def _check_choice(run: Run, number: int, task: int, outcome: int) -> None:
    if run.violation is not None:
        raise ImpossibleChoice(f"the execution ends before choice {number}")
    if task >= len(run.tasks):
        raise ImpossibleChoice(f"choice {number} names CPU{task}, the world has {len(run.tasks)}")
    pending = run.tasks[task].pending
    if pending is None:
        raise ImpossibleChoice(f"choice {number}: CPU{task} has ended")
    if task not in run.enabled():
        raise ImpossibleChoice(f"choice {number}: CPU{task} waits for a lock")
    if outcome >= pending.outcomes:
        raise ImpossibleChoice(f"choice {number}: outcome {outcome} of {pending.outcomes}")


def _told(violation: Violation | None) -> str:
    return "no violation" if violation is None else str(violation)


def difference(one: Sequence[Step], other: Sequence[Step]) -> str:
    """The first difference of two executions, or ""."""
    for number, (a, b) in enumerate(zip(one, other, strict=False), 1):
        if (a.text, a.outcomes) != (b.text, b.outcomes):
            return f"step {number} is {a.text!r}, then {b.text!r}"
        if a.footprint != b.footprint:
            changed = sorted(
                " ".join(map(str, place))
                for place in a.footprint.keys() | b.footprint.keys()
                if a.footprint.get(place) != b.footprint.get(place)
            )
            return f"step {number} ({a.text}) touches {changed[0]} in one of two executions, or in another way"
    return "" if len(one) == len(other) else f"{len(one)} steps, then {len(other)}"


@dataclass(slots=True)
class Seen:
    """A finished execution, and the lock order that was known when it began."""

    run: Run
    order: Order


class Observed:
    """A laboratory, each of whose executions is shown to `observe` when it is over; each `every`-th is executed again,
    and must be the same (NondeterminismError)."""

    def __init__(self, laboratory: Any, observe: Callable[[Seen], None] | None = None, every: int = 0) -> None:
        self.laboratory = laboratory
        self.observe = observe
        self.every = every
        self.count = 0
        self._last: Seen | None = None

    def execute(self, report: bool = False) -> Any:
        """As the laboratory's."""
        self.settle()
        order = dict(getattr(self.laboratory, "order", ()))
        execution = self.laboratory.execute(report)
        self._last = Seen(execution.run, order)
        return execution

    def settle(self) -> None:
        """The last execution is over."""
        seen, self._last = self._last, None
        if seen is None:
            return
        self.count += 1
        if self.every and self.count % self.every == 1 % self.every:
            self.confirm(seen)
        if self.observe is not None:
            self.observe(seen)

    def confirm(self, seen: Seen) -> None:
        """Execute it again. Raises NondeterminismError."""
        choices = choices_of(seen.run)
        try:
            again = reexecute(self.laboratory, choices, order=seen.order, partial=True)
        except ImpossibleChoice as error:
            raise NondeterminismError(str(error)) from error
        text = difference(seen.run.trace, again.trace)
        if not text and _told(seen.run.violation) != _told(again.violation):
            text = f"{_told(seen.run.violation)}, then {_told(again.violation)}"
        if text:
            raise NondeterminismError(text)
