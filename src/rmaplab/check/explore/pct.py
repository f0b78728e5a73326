# SPDX-License-Identifier: GPL-2.0-only
"""Probabilistic concurrency testing: random priorities, and a few random points at which who runs loses its own.

S. Burckhardt, P. Kothari, M. Musuvathi, S. Nagarakatte: A Randomized Scheduler with Probabilistic Guarantees of Finding
Bugs. ASPLOS 2010. A bug of depth d in n tasks and k steps is found with probability at least 1 / (n k^(d-1)) by each
execution. For worlds too large for `dpor`.
"""

from random import Random

from rmaplab.check.engine import Run
from rmaplab.check.execution import Laboratory
from rmaplab.check.explore.result import Budget, Result
from rmaplab.check.explore.sampling import sample

__all__ = ["DEPTH", "explore"]

DEPTH = 3
"""Depth of the bugs looked for: ordering constraints that must hold for one to show."""


class _Priorities:
    """The task with the highest priority goes on; at a few random steps whoever would loses its own."""

    def __init__(self, random: Random, depth: int) -> None:
        self.random = random
        self.depth = depth
        self.length = 30  # steps of an execution, learned as they come

    def start(self, run: Run) -> None:
        self.run = run
        self.priorities = [self.depth + i for i in range(len(run.tasks))]
        self.random.shuffle(self.priorities)
        self.changes = {self.random.randrange(self.length): level for level in range(self.depth - 1)}

    def choose(self, enabled: list[int]) -> int:
        steps = len(self.run.trace)
        self.length = max(self.length, steps + 1)
        task = max(enabled, key=self.priorities.__getitem__)
        if steps in self.changes:
            self.priorities[task] = self.changes[steps]
            task = max(enabled, key=self.priorities.__getitem__)
        return task


def explore(laboratory: Laboratory, budget: Budget, *, seed: int = 1, depth: int = DEPTH) -> Result:
    """Execute at random until the budget is spent or a violation is found. Never complete."""
    random = Random(seed)
    return sample(laboratory, budget, random, _Priorities(random, depth))
