# SPDX-License-Identifier: GPL-2.0-only
"""Every interleaving, one after another, without any reduction: the oracle for `dpor` on tiny worlds.

As systematic testing of concurrent programs began: P. Godefroid, Model Checking for Programming Languages using
VeriSoft, POPL 1997.
"""

from dataclasses import dataclass

from rmaplab.check.execution import Laboratory
from rmaplab.check.explore.result import Budget, Result

__all__ = ["explore"]


@dataclass(slots=True)
class _Node:
    """A choice: the tasks that could go on, which one does, and how it turns out."""

    enabled: list[int]
    position: int = 0
    outcome: int = 0
    outcomes: int = 1


def explore(
    laboratory: Laboratory,
    budget: Budget,
    *,
    all_violations: bool = False,
    keep_states: bool = False,
    keep_signatures: bool = False,
) -> Result:
    """Execute every interleaving, or as many as the budget allows; stop at the first violation unless
    `all_violations`."""
    result = Result()
    spent = budget.clock()
    stack: list[_Node] = []
    with result.exploring():
        while not spent(result.executions):
            execution = laboratory.execute()
            run = execution.run
            depth = 0
            while run.violation is None:
                enabled = run.enabled()
                if not enabled:
                    break
                if depth == len(stack):
                    stack.append(_Node(enabled))
                node = stack[depth]
                step = execution.step(node.enabled[node.position], node.outcome)
                node.outcomes = step.outcomes
                depth += 1
            new = result.take(execution, keep_states=keep_states, keep_signatures=keep_signatures)
            if new and not all_violations:
                break
            if not _next(stack):
                result.complete = True
                break
    return result


def _next(stack: list[_Node]) -> bool:
    while stack:
        node = stack[-1]
        if node.outcome + 1 < node.outcomes:
            node.outcome += 1
            return True
        if node.position + 1 < len(node.enabled):
            node.position += 1
            node.outcome, node.outcomes = 0, 1
            return True
        stack.pop()
    return False
