# SPDX-License-Identifier: GPL-2.0-only
"""Any task that can go on, with the same probability at every step: the baseline.

The random walk of, for instance, P. Thomson, A. Donaldson, A. Betts: Concurrency Testing Using Controlled Schedulers:
An Empirical Study. ACM Transactions on Parallel Computing 2(4), 2016.
"""

import time
from random import Random

from rmaplab.check.execution import Laboratory
from rmaplab.check.explore.result import Budget, Found, Result

__all__ = ["explore"]


def explore(laboratory: Laboratory, budget: Budget, *, seed: int = 1) -> Result:
    """Execute at random until the budget is spent or a violation is found. Never complete."""
    result = Result()
    start = time.monotonic()
    spent = budget.clock()
    random = Random(seed)
    try:
        while not spent(result.executions):
            execution = laboratory.execute()
            run = execution.run
            while run.violation is None:
                enabled = run.enabled()
                if not enabled:
                    break
                task = random.choice(enabled)
                pending = run.tasks[task].pending
                assert pending is not None
                execution.step(task, random.randrange(pending.outcomes))
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
