# SPDX-License-Identifier: GPL-2.0-only
"""The invariants by name, and what is raised when one does not hold."""

from dataclasses import dataclass

__all__ = [
    "ALLOCATION_MAY_FAIL",
    "BAD_DEREFERENCE",
    "COW_ISOLATION",
    "DEADLOCK",
    "INVARIANTS",
    "KERNEL_BUG",
    "LEAK",
    "LOCK_ORDER",
    "LOCK_RULE",
    "MAPCOUNT",
    "REFCOUNT",
    "SLEEP_IN_RCU",
    "STEP_BOUND",
    "USE_AFTER_FREE",
    "WALK_MISSES_PTE",
    "WALK_WRONG_VMA",
    "Violation",
]

WALK_MISSES_PTE = "walk-misses-pte"
WALK_WRONG_VMA = "walk-wrong-vma"
USE_AFTER_FREE = "use-after-free"
MAPCOUNT = "mapcount"
REFCOUNT = "refcount"
COW_ISOLATION = "cow-isolation"
LEAK = "leak"
KERNEL_BUG = "kernel-bug"
BAD_DEREFERENCE = "bad-dereference"
LOCK_RULE = "lock-rule"
LOCK_ORDER = "lock-order"
DEADLOCK = "deadlock"
SLEEP_IN_RCU = "sleep-in-rcu"
ALLOCATION_MAY_FAIL = "allocation-may-fail"
STEP_BOUND = "step-bound"

INVARIANTS = {
    WALK_MISSES_PTE: "a walk under the locks that its user holds reaches every entry that maps the folio",
    WALK_WRONG_VMA: "a walk visits only VMAs that are in the tree of a live address space",
    USE_AFTER_FREE: "nothing that was freed is reached, or freed again",
    MAPCOUNT: "a folio's mapcount is the number of entries that map it",
    REFCOUNT: "references and swap counts are as many as their holders",
    COW_ISOLATION: "a write is never seen through another private mapping; nothing else changes what is seen",
    LEAK: "after every process has exited, no object, page, slot or node is left",
    KERNEL_BUG: "no assertion of the kernel's own (VM_BUG_ON) fails",
    LOCK_RULE: "every access holds a lock that the rules ask for, or is declared to be lockless (process_addrs.rst)",
    LOCK_ORDER: "locks are taken in one order (lockdep)",
    DEADLOCK: "some task can always go on until all have ended",
    SLEEP_IN_RCU: "no lock that may sleep is waited for in an RCU section or under a spinlock",
    ALLOCATION_MAY_FAIL: "an operation that ran out of memory left everything as it was",
    STEP_BOUND: "every execution ends",
    BAD_DEREFERENCE: "no code takes a tagged word, or an object of another type, for an anon_vma",
}


@dataclass(eq=False)
class Violation(Exception):
    """An invariant does not hold.

    name: of the invariant, a key of INVARIANTS
    text: what was found, for people
    """

    name: str
    text: str

    def __str__(self) -> str:
        return f"{self.name}: {self.text}"
