# SPDX-License-Identifier: GPL-2.0-only
"""Runs one random history under a design, asks the oracle after every operation, and shrinks what fails."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from rmaplab.check.violation import BAD_DEREFERENCE, KERNEL_BUG, STEP_BOUND, USE_AFTER_FREE, Violation
from rmaplab.designs.anon_vma import AnonVma
from rmaplab.mm.bug import KernelBug
from rmaplab.mm.hooks import Hooks
from rmaplab.mm.kernel import Kernel
from rmaplab.mm.locks import CountingLocks
from rmaplab.mm.slab import UseAfterFree
from rmaplab.workload.random_ops import Op
from rmaplab.workload.walk_ops import WalkWorld

__all__ = ["Failure", "run_history", "shrink"]

DesignFactory = Callable[[], Hooks]

SECTIONS = 100_000  # RCU read sections; an operation and its check need some thousands


class _EndingLocks(CountingLocks):
    """Locks that notice a loop without end, such as a walk that tries again until somebody renames the folio: one
    operation at a time, nobody does."""

    __slots__ = ("sections",)

    def __init__(self) -> None:
        super().__init__()
        self.sections = 0

    def rcu_read(self) -> AbstractContextManager[Any]:
        self.sections += 1
        if self.sections > SECTIONS:
            raise Violation(STEP_BOUND, f"more than {SECTIONS} RCU read sections in one operation: it does not end")
        return super().rcu_read()


@dataclass(frozen=True, slots=True)
class Failure:
    """A history that breaks an invariant: its operations up to the violation, and what was found."""

    name: str
    text: str
    history: tuple[Op, ...]


def run_history(factory: DesignFactory, history: Sequence[Op]) -> Failure | None:
    """Apply `history` to a fresh kernel with a fresh design, checking after every operation, then let all exit."""
    done = 0
    try:
        locks = _EndingLocks()
        kernel = Kernel(factory(), locks=locks, contents=True)
        world = WalkWorld(kernel)
        for done, op in enumerate(history, 1):  # noqa: B007
            locks.sections = 0
            world.apply(op)
            world.check()
        world.exit_all()
    except Violation as violation:
        return Failure(violation.name, violation.text, tuple(history[:done]))
    except UseAfterFree as error:
        return Failure(USE_AFTER_FREE, str(error), tuple(history[:done]))
    except KernelBug as error:
        return Failure(KERNEL_BUG, str(error), tuple(history[:done]))
    except (AttributeError, TypeError, AssertionError, KeyError, ValueError) as error:
        freed = isinstance(error, AttributeError) and isinstance(error.obj, AnonVma)
        name = USE_AFTER_FREE if freed else BAD_DEREFERENCE
        return Failure(name, f"{type(error).__name__}: {error}", tuple(history[:done]))
    return None


def shrink(factory: DesignFactory, failure: Failure) -> Failure:
    """The shortest failing history found by leaving operations out, halves first, then one by one; then by taking
    fewer pages. It may break another invariant than the one given."""
    best = failure
    size = max(1, len(best.history) // 2)
    while True:
        before = len(best.history)
        start = 0
        while start < len(best.history):
            shorter = run_history(factory, best.history[:start] + best.history[start + size :])
            if shorter is not None:
                best = shorter
            else:
                start += size
        if size > 1:
            size //= 2
        elif len(best.history) == before:
            break
    return _fewer_pages(factory, best)


def _fewer_pages(factory: DesignFactory, best: Failure) -> Failure:
    """Ranges with fewer pages, where the second argument is a number of pages"""
    for i in range(len(best.history)):
        if i >= len(best.history):
            break
        op = best.history[i]
        if op.name not in ("mmap", "munmap", "mprotect", "madvise", "reclaim", "migrate", "ksmd"):
            continue
        for pages in (1, 2, 4):
            if pages >= op.args[1]:
                break
            smaller = Op(op.process, op.name, (op.args[0], pages, *op.args[2:]))
            found = run_history(factory, (*best.history[:i], smaller, *best.history[i + 1 :]))
            if found is not None and len(found.history) <= len(best.history):
                best = found
                break
    return best
