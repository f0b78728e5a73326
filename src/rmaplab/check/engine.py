# SPDX-License-Identifier: GPL-2.0-only
"""One execution: tasks as greenlets, run one at a time from scheduling point to scheduling point.

The main greenlet decides who goes on (:meth:`Run.step`); a task gives way in :meth:`Run.point`, before it does what it
announced. Vector clocks tell which steps happen before which: a step joins the clocks of all earlier ones that its
footprint conflicts with. They serve the explorers (which steps may be swapped) and find data races: an access to a
field that is neither atomic nor ordered by a lock with another task's.
"""

import contextlib
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from greenlet import GreenletExit, getcurrent, greenlet

from rmaplab.check.footprint import (
    ACQUIRE_READ,
    ACQUIRE_WRITE,
    CONFLICTS,
    READ,
    RELEASE_READ,
    RELEASE_WRITE,
    TRY_READ,
    TRY_WRITE,
    WRITE,
    Footprint,
    Location,
)
from rmaplab.check.kernel_names import kernel_functions
from rmaplab.check.violation import DEADLOCK, LOCK_RULE, STEP_BOUND, USE_AFTER_FREE, Violation
from rmaplab.mm.hooks import ForkRefused, WalkContended
from rmaplab.mm.slab import AllocationFailure

__all__ = ["ModelLock", "Pending", "Run", "Step", "Task"]

Clock = list[int]
_OF_THE_MODEL = (WalkContended, AllocationFailure, ForkRefused, GeneratorExit, StopIteration)
_LOCK_BITS = (ACQUIRE_READ, ACQUIRE_WRITE, RELEASE_READ, RELEASE_WRITE, TRY_READ, TRY_WRITE)
SPINS = 8
"""A counter that a step has touched may be read again in it, as inc-not-zero and dec-and-test do; so often, since a
loop must not go on forever between two scheduling points."""
STEPS = 20000
"""Bound on the steps of one execution: a world that takes more does not end by itself."""


@dataclass(slots=True, eq=False)
class ModelLock:
    """One lock of the modelled kernel.

    kind: class of the lock, for the lock order: "mmap_lock", "vma", "anon_vma", "folio", "ptl", "page_table_lock"
    subject, index: what it locks: an mm, a VMA, a root anon_vma, a folio; of an mm, which page table; text: in words
    owner: the object that it lies in, if that may be freed
    writer: the task that holds it exclusively; readers: those that share it
    released: clock of the last exclusive release; read_released: joined clocks of the shared ones since
    ordered, read_ordered: the same of :attr:`Task.ordered`
    history: (task, mode bit) -> clock of its last step that did that to the lock
    """

    kind: str
    subject: Any
    index: int | None
    text: str
    location: Location
    sleeps: bool
    owner: Any = None
    writer: "Task | None" = None
    readers: "list[Task]" = field(default_factory=list)
    released: Clock | None = None
    read_released: Clock | None = None
    ordered: Clock | None = None
    read_ordered: Clock | None = None
    history: dict[tuple[int, int], Clock] = field(default_factory=dict)

    def free_for(self, write: bool) -> bool:
        """Could a task get it now?"""
        return self.writer is None and not (write and self.readers)


@dataclass(slots=True, eq=False)
class Pending:
    """What a task does next.

    text: in the kernel's words; lock: what it waits for, write: exclusively; outcomes: how many ways it can go
    where: for a report, the kernel functions that it is in, innermost first
    """

    text: str
    lock: ModelLock | None = None
    write: bool = False
    outcomes: int = 1
    where: tuple[str, ...] = ()


@dataclass(slots=True, eq=False)
class Task:
    """One CPU's work.

    clock: per task, how many of its steps happened before, as far as that can be told from what depends on what
    ordered: the same, as far as locks, and atomic reads of what was written, have ordered it: for data races
    held: locks in order of acquisition; rcu, lockless: depth of such sections; life: operations that it has begun
    """

    index: int
    name: str
    greenlet: Any = None
    pending: Pending | None = None
    clock: Clock = field(default_factory=list)
    ordered: Clock = field(default_factory=list)
    held: list[ModelLock] = field(default_factory=list)
    vma_writes: list[tuple[ModelLock, ModelLock]] = field(default_factory=list)  # (mmap lock, VMA lock)
    rcu: int = 0
    rcu_since: int = 0
    lockless: int = 0
    outcome: int = 0
    failures: int = 0
    objects: int = 0
    visiting: Location | None = None
    operation: str = ""


@dataclass(slots=True, eq=False)
class Step:
    """One step as it was executed.

    clock: per task, how many of its steps happen before or are this one; before: the task's clock before the step;
    base: the same with what the lock it waited for brought
    notes, where, operation, held: for a report: what happened inside; the kernel functions that it is in, innermost
    first; the operation that it belongs to; the locks held after it
    """

    task: int
    text: str
    outcome: int
    outcomes: int
    footprint: Footprint
    clock: Clock
    before: Clock
    base: Clock
    notes: list[str] = field(default_factory=list)
    where: tuple[str, ...] = ()
    operation: str = ""
    held: tuple[str, ...] = ()


def join(clock: Clock, other: Clock) -> None:
    """`clock` becomes the later of both, in each component."""
    for i, value in enumerate(other):
        if value > clock[i]:
            clock[i] = value


@dataclass(slots=True, eq=False)
class _Seen:
    """Last accesses to a location that is not a lock: clocks of the steps that wrote, and read since."""

    write: Clock | None = None
    writer: int = -1
    reads: dict[int, Clock] = field(default_factory=dict)
    ordered: Clock | None = None  # of the last atomic write
    plain_write: tuple[int, int] = (-1, 0)  # task, number of its step
    plain_reads: dict[int, int] = field(default_factory=dict)


class Run:
    """An execution in progress.

    step_bound: more steps than that are reported as `step-bound`
    fail, tryfail: how many allocations, and trylocks, of each task may fail without need
    notes: None, or a place to collect what happens inside of steps, for a report
    """

    def __init__(self, names: list[str], *, fail: int = 0, tryfail: int = 0, report: bool = False) -> None:
        count = len(names)
        self.tasks = [Task(i, name, clock=[0] * count, ordered=[0] * count) for i, name in enumerate(names)]
        self.task: Task | None = None  # who runs
        self.main = getcurrent()
        self.trace: list[Step] = []
        self.footprint: Footprint = {}
        self.base: Clock = []
        self.violation: Violation | None = None
        self.fail = fail
        self.tryfail = tryfail
        self.report = report
        self.notes: list[str] = []
        self.locks: dict[tuple[str, int, int | None], ModelLock] = {}  # kind, id of the subject, index
        self.names: dict[int, str] = {}  # by id of the object
        self.named: list[tuple[Any, str]] = []  # holds these objects, so that no other gets their id
        self.freed: dict[int, dict[int, int] | None] = {}  # id -> task -> its RCU section then; None: freed at once
        self.trees: dict[Any, Any] = {}  # mm -> its maple tree as readers under RCU see it (watch.Tree)
        self.monitors: list[Any] = []  # walks in progress (walk_monitor)
        self._seen: dict[Location, _Seen] = {}
        self._last_read: Location | None = None
        self._again = 0  # reads of counters that the step has touched already
        self._setup_objects = 0

    # --- tasks

    def start(self, bodies: list[Callable[[], None]]) -> None:
        """Give each task its work, and run it up to its first scheduling point, which is before any shared access."""
        for task, body in zip(self.tasks, bodies, strict=True):
            task.greenlet = greenlet(body)
            self._resume(task)

    def _resume(self, task: Task) -> None:
        task.pending = None
        self.task = task
        try:
            task.greenlet.switch()
        except Violation as violation:
            self.violation = violation
        finally:
            self.task = None

    def done(self) -> bool:
        """Has every task ended?"""
        return all(task.pending is None for task in self.tasks)

    def enabled(self) -> list[int]:
        """The tasks that can go on."""
        found = []
        for task in self.tasks:
            pending = task.pending
            if pending is not None and (pending.lock is None or pending.lock.free_for(pending.write)):
                found.append(task.index)
        return found

    def step(self, index: int, outcome: int = 0) -> Step:
        """Let a task go on to its next scheduling point."""
        task = self.tasks[index]
        pending = task.pending
        assert pending is not None
        before = task.clock
        clock = before.copy()
        clock[index] += 1
        task.clock = clock
        task.ordered = task.ordered.copy()
        task.ordered[index] = clock[index]
        task.outcome = outcome
        self.footprint = {}
        self.base = before
        self._last_read = None
        self._again = 0
        self.notes = []
        operation = task.operation
        self._resume(task)
        step = Step(
            index, pending.text, outcome, pending.outcomes, self.footprint, clock, before, self.base, self.notes
        )
        if self.report:
            step.where, step.operation = pending.where, operation
            step.held = tuple(lock.text for lock in task.held)
        self.trace.append(step)
        if len(self.trace) > STEPS and self.violation is None:
            self.violation = Violation(STEP_BOUND, f"more than {STEPS} steps: this world does not end by itself")
        return step

    def check_deadlock(self) -> None:
        """Nobody can go on, but not all have ended."""
        waits = [
            f"{task.name} waits for {self.lock_text(task.pending.lock)}"
            for task in self.tasks
            if task.pending is not None and task.pending.lock is not None
        ]
        self.violation = Violation(DEADLOCK, "; ".join(waits))

    def abandon(self) -> None:
        """Forget tasks that have not ended."""
        for task in self.tasks:
            task.pending = None
            g = task.greenlet
            task.greenlet = None
            if g is not None and not g.dead and g:
                self.task = None
                with contextlib.suppress(BaseException):
                    g.throw(GreenletExit)

    # --- what a task calls

    def point(self, text: str, lock: ModelLock | None = None, write: bool = False, outcomes: int = 1) -> int:
        """A scheduling point. Returns the outcome chosen."""
        error = sys.exc_info()[1]
        if error is not None and not isinstance(error, _OF_THE_MODEL):
            return 0  # the end: cleaning up on the way out is no step
        task = self.task
        assert task is not None
        task.pending = pending = Pending(text, lock, write, outcomes)
        if self.report:
            pending.where = kernel_functions(sys._getframe(1))
        self.main.switch()
        return task.outcome

    def note(self, text: str) -> None:
        """Something worth telling in a report."""
        if self.report:
            self.notes.append(text)

    def touch(self, location: Location, mode: int, acquire: bool = True, release: bool = True) -> None:
        """The running step reads or writes `location`, ordered after what conflicts with it.

        acquire: what the last writer did before is seen from now on; release: a write lets others see what was done
        """
        footprint = self.footprint
        old = footprint.get(location, 0)
        if old & mode == mode:
            return
        footprint[location] = old | mode
        task = self.task
        assert task is not None
        clock = task.clock
        seen = self._seen.get(location)
        if seen is None:
            seen = self._seen[location] = _Seen()
        if acquire and seen.ordered is not None:
            join(task.ordered, seen.ordered)
        if release and mode & WRITE:
            seen.ordered = task.ordered
        if seen.write is not None and seen.write is not clock:
            join(clock, seen.write)
        if mode & WRITE:
            for read in seen.reads.values():
                if read is not clock:
                    join(clock, read)
            seen.reads = {}
            seen.write = clock
            seen.writer = task.index
        else:
            seen.reads[task.index] = clock

    def touch_lock(self, lock: ModelLock, mode: int) -> None:
        """The same for a lock; what it orders, the lock's own clocks say, and for attempts these."""
        footprint = self.footprint
        footprint[lock.location] = footprint.get(lock.location, 0) | mode
        task = self.task
        assert task is not None
        index, clock = task.index, task.clock
        conflicts = CONFLICTS[mode]
        for (other, bit), past in lock.history.items():
            if other != index and conflicts & bit:
                join(clock, past)
        for bit in _LOCK_BITS:
            if mode & bit:
                lock.history[index, bit] = clock

    def read(self, obj: Any, group: str, counter: bool = False) -> None:
        """An atomic read of a field; of a `counter`, the first half of a read-modify-write if a write follows."""
        location = (self.name(obj), group)
        if counter and location in self.footprint and self._again < SPINS:
            self._again += 1
        else:
            self.point(f"read {location[0]}.{group}")
        self.alive(obj)
        self.touch(location, READ)
        self._last_read = location if counter else None

    def write(self, obj: Any, group: str) -> None:
        """An atomic write of a field."""
        location = (self.name(obj), group)
        update = self._last_read == location
        if not update:
            self.point(f"write {location[0]}.{group}")
        self._last_read = None
        self.alive(obj)
        self.touch(location, WRITE, update)

    def plain(self, obj: Any, group: str, write: bool) -> None:
        """An access that a lock must order with those of other tasks; it is no scheduling point."""
        task = self.task
        assert task is not None
        location = (self.name(obj), group)
        if task.lockless and not write:
            if location not in self.footprint:
                self.point(f"read {location[0]}.{group} without its lock")
            self.alive(obj)
            self.touch(location, READ)
            return
        self.alive(obj)
        self.touch(location, WRITE if write else READ, False, False)
        seen = self._seen[location]
        index, ordered = task.index, task.ordered
        writer, number = seen.plain_write
        if writer != index and writer >= 0 and ordered[writer] < number:
            self._race(location, write, self.tasks[writer], True)
        if write:
            for reader, number in seen.plain_reads.items():
                if reader != index and ordered[reader] < number:
                    self._race(location, write, self.tasks[reader], False)
            seen.plain_write = index, ordered[index]
            seen.plain_reads = {}
        else:
            seen.plain_reads[index] = ordered[index]

    def _race(self, location: Location, write: bool, other: Task, other_wrote: bool) -> None:
        assert self.task is not None
        raise Violation(
            LOCK_RULE,
            f"{self.task.name} {'writes' if write else 'reads'} {location[0]}.{location[1]}, which {other.name} "
            f"{'wrote' if other_wrote else 'read'}; no lock orders the two",
        )

    def pte_changed(self, mm: Any, vpn: int) -> None:
        """An entry is about to change."""
        for monitor in self.monitors:
            monitor.owed.discard((mm, vpn))

    def visit(self, place: Location | None) -> None:
        """The running task is in a page table from now on: ("tables", mm, index), or in none."""
        task = self.task
        assert task is not None
        if task.visiting is not None:
            self.touch((task.visiting[1], task.visiting[0]), READ)  # whoever frees tables looks who is there
        task.visiting = place

    # --- objects

    def name(self, obj: Any) -> str:
        """A name that is the same in every execution in which the object is made by the same task in the same order."""
        known = self.names.get(id(obj))
        if known is not None:
            return known
        kind = type(obj).__name__
        if self.task is None:
            self._setup_objects += 1
            name = f"{kind}{self._setup_objects}"
        else:
            self.task.objects += 1
            name = f"{kind}{'abcdefgh'[self.task.index]}{self.task.objects}"
        self.names[id(obj)] = name
        self.named.append((obj, name))
        return name

    def alive(self, obj: Any) -> None:
        """Raise use-after-free if `obj` is freed, and no RCU section that the running task is in began before."""
        if id(obj) not in self.freed:
            return
        readers = self.freed[id(obj)]
        task = self.task
        if readers is not None and task is not None and task.rcu and readers.get(task.index) == task.rcu_since:
            return
        who = task.name if task is not None else "a check"
        raise Violation(USE_AFTER_FREE, f"{who} reaches {self.name(obj)}, which was freed")

    def free(self, obj: Any, groups: Callable[[type], tuple[str, ...]], rcu: bool) -> None:
        """`obj`, with these fields by its class, is freed: now, or at the end of a grace period, which comes as early
        as it can."""
        name = self.name(obj)
        if id(obj) in self.freed:
            raise Violation(USE_AFTER_FREE, f"{name} is freed twice")
        if self.task is None:
            self.freed[id(obj)] = None
            return
        for group in groups(type(obj)):
            self.touch((name, group), WRITE)
        if rcu:
            self.touch(("rcu", "grace period"), WRITE)
        readers = {task.index: task.rcu_since for task in self.tasks if task.rcu}
        self.freed[id(obj)] = readers if rcu else None
        self.note(f"free {name}")

    def lock_text(self, lock: ModelLock) -> str:
        """The lock in words, with who holds it."""
        holders = [lock.writer] if lock.writer is not None else lock.readers
        by = f", held by {', '.join(task.name for task in holders)}" if holders else ""
        return f"{lock.text} ({lock.kind}){by}"
