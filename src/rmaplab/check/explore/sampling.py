# SPDX-License-Identifier: GPL-2.0-only
"""What explorers by chance share: execution after execution, until a violation is found or the budget is spent."""

from random import Random
from typing import Protocol

from rmaplab.check.engine import Run
from rmaplab.check.execution import Laboratory
from rmaplab.check.explore.result import Budget, Result

__all__ = ["Schedule", "sample"]


class Schedule(Protocol):
    """Chooses who goes on."""

    def start(self, run: Run) -> None:
        """An execution begins."""

    def choose(self, enabled: list[int]) -> int:
        """One of the tasks that can go on."""


def sample(laboratory: Laboratory, budget: Budget, random: Random, schedule: Schedule) -> Result:
    """Execute as `schedule` says, each step with an outcome by chance. Never complete."""
    result = Result()
    spent = budget.clock()
    with result.exploring():
        while not spent(result.executions):
            execution = laboratory.execute()
            run = execution.run
            schedule.start(run)
            while run.violation is None:
                enabled = run.enabled()
                if not enabled:
                    break
                task = schedule.choose(enabled)
                pending = run.tasks[task].pending
                assert pending is not None
                execution.step(task, random.randrange(pending.outcomes))
            if result.take(execution):
                break
    return result
