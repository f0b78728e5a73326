# SPDX-License-Identifier: GPL-2.0-only
"""Probabilistic concurrency testing: random priorities, and a few random points at which who runs loses its own.

S. Burckhardt, P. Kothari, M. Musuvathi, S. Nagarakatte: A Randomized Scheduler with Probabilistic Guarantees of Finding
Bugs. ASPLOS 2010. A bug of depth d in n tasks and k steps is found with probability at least 1 / (n k^(d-1)) by each
execution. For worlds too large for `dpor`.
"""

import time
from random import Random

from rmaplab.check.execution import Laboratory
from rmaplab.check.explore.result import Budget, Found, Result

__all__ = ["DEPTH", "explore"]

DEPTH = 3
"""Depth of the bugs looked for: ordering constraints that must hold for one to show."""


def explore(laboratory: Laboratory, budget: Budget, *, seed: int = 1, depth: int = DEPTH) -> Result:
    """Execute at random until the budget is spent or a violation is found. Never complete."""
    result = Result()
    start = time.monotonic()
    spent = budget.clock()
    random = Random(seed)
    length = 30  # steps of an execution, learned as they come
    try:
        while not spent(result.executions):
            execution = laboratory.execute()
            run = execution.run
            priorities = [depth + i for i in range(len(run.tasks))]
            random.shuffle(priorities)
            changes = {random.randrange(length): level for level in range(depth - 1)}
            while run.violation is None:
                enabled = run.enabled()
                if not enabled:
                    break
                task = max(enabled, key=priorities.__getitem__)
                if len(run.trace) in changes:
                    priorities[task] = changes[len(run.trace)]
                    task = max(enabled, key=priorities.__getitem__)
                pending = run.tasks[task].pending
                assert pending is not None
                execution.step(task, random.randrange(pending.outcomes))
            length = max(length, len(run.trace))
            violation = execution.finish()
            result.executions += 1
            result.steps += len(run.trace)
            if violation is not None:
                choices = tuple((step.task, step.outcome) for step in run.trace)
                result.found.append(Found(violation, choices, result.executions))
                break
    except KeyboardInterrupt:
        result.interrupted = True
    result.seconds = time.monotonic() - start
    return result
