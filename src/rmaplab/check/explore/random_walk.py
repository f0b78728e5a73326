# SPDX-License-Identifier: GPL-2.0-only
"""Any task that can go on, with the same probability at every step: the baseline.

The random walk of, for instance, P. Thomson, A. Donaldson, A. Betts: Concurrency Testing Using Controlled Schedulers:
An Empirical Study. ACM Transactions on Parallel Computing 2(4), 2016.
"""

from random import Random

from rmaplab.check.engine import Run
from rmaplab.check.execution import Laboratory
from rmaplab.check.explore.result import Budget, Result
from rmaplab.check.explore.sampling import sample

__all__ = ["explore"]


class _Anyone:
    def __init__(self, random: Random) -> None:
        self.random = random

    def start(self, run: Run) -> None:
        """Nothing to prepare."""

    def choose(self, enabled: list[int]) -> int:
        return self.random.choice(enabled)


def explore(laboratory: Laboratory, budget: Budget, *, seed: int = 1) -> Result:
    """Execute at random until the budget is spent or a violation is found. Never complete."""
    random = Random(seed)
    return sample(laboratory, budget, random, _Anyone(random))
