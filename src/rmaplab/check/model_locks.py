# SPDX-License-Identifier: GPL-2.0-only
"""The locks of the model under the checker: the same methods as :class:`rmaplab.mm.locks.CountingLocks`, but each is a
scheduling point, waits, and knows the rule book (Documentation/mm/process_addrs.rst, lockdep)."""

from collections.abc import Callable
from types import TracebackType
from typing import Any

from greenlet import GreenletExit

from rmaplab.check.engine import ModelLock, Run, Task, join
from rmaplab.check.footprint import (
    ACQUIRE_READ,
    ACQUIRE_WRITE,
    READ,
    RELEASE_READ,
    RELEASE_WRITE,
    TRY_READ,
    TRY_WRITE,
    WRITE,
)
from rmaplab.check.violation import BAD_DEREFERENCE, LOCK_ORDER, LOCK_RULE, SLEEP_IN_RCU, USE_AFTER_FREE, Violation
from rmaplab.mm.bug import KernelBug
from rmaplab.mm.flags import PMD_SHIFT
from rmaplab.mm.slab import UseAfterFree

__all__ = ["CheckedLocks"]

SPINS = ("ptl", "page_table_lock", "folio_list")
TRIED = ("mmap_lock", "folio", "vma", "anon_vma")
"""Kinds that somebody may try without waiting: when they are let go matters, so that is a scheduling point."""


_CRASHES = (
    Violation,
    UseAfterFree,
    KernelBug,
    AttributeError,
    TypeError,
    AssertionError,
    LookupError,
    ValueError,
    GreenletExit,
)
"""After these the task does nothing more, so it lets no lock go either. GeneratorExit is no crash: a walk was ended."""


def _crashed(error: BaseException | None) -> bool:
    """Is `error` a crash, or the end of a walk whose user crashed?"""
    while error is not None:
        if isinstance(error, _CRASHES):
            return True
        error = error.__context__
    return False


class _Guard:
    """Lets a lock go at the end of a with block."""

    __slots__ = ("lock", "locks")

    def __init__(self, locks: "CheckedLocks", lock: ModelLock) -> None:
        self.locks = locks
        self.lock = lock

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self.locks.run.task is not None and not _crashed(error):
            self.locks.release(self.lock)


class _Section:
    """An RCU read-side or a lockless section."""

    __slots__ = ("attribute", "run")

    def __init__(self, run: Run, attribute: str) -> None:
        self.run = run
        self.attribute = attribute

    def __enter__(self) -> None:
        task = self.run.task
        assert task is not None
        if self.attribute == "rcu" and not task.rcu:
            if ("rcu", "grace period") in self.run.footprint:
                self.run.point("rcu_read_lock")  # between two sections a grace period may end
            task.rcu_since += 1
            self.run.touch(("rcu", "grace period"), READ)
        setattr(task, self.attribute, getattr(task, self.attribute) + 1)

    def __exit__(self, *error: object) -> None:
        task = self.run.task
        if task is not None:
            setattr(task, self.attribute, getattr(task, self.attribute) - 1)
            if self.attribute == "rcu":
                self.run.touch(("rcu", "grace period"), READ)


class _Nothing:
    def __enter__(self) -> None:
        return None

    def __exit__(self, *error: object) -> None:
        return None


_NOTHING = _Nothing()


class CheckedLocks:
    """See :class:`rmaplab.mm.locks.CountingLocks` for the methods. Before the tasks start, and after they have ended,
    locks do nothing.

    order: the lock order learned so far: (held, acquired) kinds; shared by all executions of a world
    """

    def __init__(self, run: Run, order: dict[tuple[str, str], str]) -> None:
        self.run = run
        self.order = order

    # --- machinery

    def _lock(self, kind: str, subject: Any, index: int | None = None) -> ModelLock:
        run = self.run
        lock = run.locks.get((kind, id(subject), index))
        if lock is None:
            text = f"{kind} {run.name(subject)}" if index is None else f"{kind} {run.name(subject)} {index}"
            lock = ModelLock(kind, subject, index, text, ("lock", text), kind not in SPINS)
            run.locks[kind, id(subject), index] = lock  # which holds the subject, so that nothing else gets its id
        return lock

    def _acquire(self, lock: ModelLock, write: bool) -> Any:
        run = self.run
        task = run.task
        if task is None:
            return _NOTHING
        self._may_wait(task, lock)
        how = "" if lock.kind in (*SPINS, "folio") else " for writing" if write else " for reading"
        run.point(f"lock {lock.text}{how}", lock, write)
        self._take(task, lock, write)
        run.touch_lock(lock, ACQUIRE_WRITE if write else ACQUIRE_READ)
        return _Guard(self, lock)

    def _try(self, lock: ModelLock, write: bool, allowed: Callable[[], bool] | None = None) -> Any:
        run = self.run
        task = run.task
        if task is None:
            return _NOTHING
        outcomes = 2 if task.failures < run.tryfail else 1
        outcome = run.point(f"trylock {lock.text}", outcomes=outcomes)
        mode = TRY_WRITE if write else TRY_READ
        if outcome or not lock.free_for(write) or (allowed is not None and not allowed()):
            task.failures += outcome
            run.touch_lock(lock, mode)
            run.note("fails")
            return None
        self._take(task, lock, write)
        run.touch_lock(lock, mode | (ACQUIRE_WRITE if write else ACQUIRE_READ))
        return _Guard(self, lock)

    def _may_wait(self, task: Task, lock: ModelLock) -> None:
        if lock.writer is task or task in lock.readers:
            raise Violation(LOCK_RULE, f"{task.name} waits for {lock.text}, which it holds itself")
        if lock.sleeps:
            spin = next((held for held in task.held if not held.sleeps), None)
            if task.rcu or spin is not None:
                where = "in an RCU read-side section" if task.rcu else f"under {spin.text if spin else ''}"
                raise Violation(SLEEP_IN_RCU, f"{task.name} may sleep for {lock.text} {where}")
        for held in task.held:
            if held.kind != lock.kind and (held.kind, lock.kind) not in self.order:
                self._learn(task, held, lock)

    def _learn(self, task: Task, held: ModelLock, lock: ModelLock) -> None:
        self.order[held.kind, lock.kind] = f"{task.name}: {held.text}, then {lock.text}"
        reachable: set[str] = set()
        todo = [lock.kind]
        while todo:
            kind = todo.pop()
            if kind == held.kind:
                chain = "; ".join(
                    text for (a, _), text in self.order.items() if a in reachable | {held.kind, lock.kind}
                )
                raise Violation(LOCK_ORDER, f"{task.name} takes {lock.kind} under {held.kind}: a cycle ({chain})")
            if kind not in reachable:
                reachable.add(kind)
                todo += [b for a, b in self.order if a == kind]

    def _take(self, task: Task, lock: ModelLock, write: bool) -> None:
        if lock.owner is not None:
            self.run.alive(lock.owner)
        clock = task.clock
        if lock.released is not None:
            join(clock, lock.released)
        if lock.ordered is not None:
            join(task.ordered, lock.ordered)
        if write:
            if lock.read_released is not None:
                join(clock, lock.read_released)
            if lock.read_ordered is not None:
                join(task.ordered, lock.read_ordered)
            lock.writer = task
        else:
            lock.readers.append(task)
        self.run.base = clock.copy()
        task.held.append(lock)

    def release(self, lock: ModelLock) -> None:
        """Let `lock` go; with the mmap lock also the VMAs locked for writing under it."""
        run = self.run
        task = run.task
        assert task is not None
        if lock.kind in TRIED:
            run.point(f"unlock {lock.text}")
        if lock.owner is not None:
            run.alive(lock.owner)
        run.visit(None)
        if lock.kind == "mmap_lock":
            self._vma_end_write_all(task, lock)
        self._let_go(task, lock, lock.writer is task)

    def _vma_end_write_all(self, task: Task, mmap_lock: ModelLock) -> None:
        mine = [vma_lock for mm_lock, vma_lock in task.vma_writes if mm_lock is mmap_lock]
        task.vma_writes = [pair for pair in task.vma_writes if pair[0] is not mmap_lock]
        for vma_lock in mine:
            self._let_go(task, vma_lock, True)

    def _let_go(self, task: Task, lock: ModelLock, write: bool) -> None:
        task.held.remove(lock)
        clock = task.clock
        if write:
            lock.writer = None
            lock.released = clock
            lock.read_released = lock.read_ordered = None
            lock.ordered = task.ordered
        else:
            lock.readers.remove(task)
            if lock.read_ordered is None:
                lock.read_ordered = task.ordered.copy()
            else:
                join(lock.read_ordered, task.ordered)
            if lock.read_released is None:
                lock.read_released = clock.copy()
            else:
                joined = lock.read_released.copy()
                join(joined, clock)
                lock.read_released = joined
        self.run.touch_lock(lock, RELEASE_WRITE if write else RELEASE_READ)

    # --- the locks

    def mmap_read(self, mm: Any) -> Any:
        return self._acquire(self._lock("mmap_lock", mm), False)

    def mmap_write(self, mm: Any) -> Any:
        return self._acquire(self._lock("mmap_lock", mm), True)

    def mmap_write_downgrade(self, mm: Any) -> None:
        run = self.run
        task = run.task
        if task is None:
            return
        lock = self._lock("mmap_lock", mm)
        run.point(f"downgrade {lock.text}")
        self._vma_end_write_all(task, lock)
        self._let_go(task, lock, True)
        lock.readers.append(task)  # no acquisition: nobody else could have had it first
        task.held.append(lock)

    def mmap_read_trylock(self, mm: Any) -> Any:
        return self._try(self._lock("mmap_lock", mm), False)

    def vma_start_read(self, vma: Any) -> Any:
        if self.run.task is None:
            return _NOTHING

        def attached() -> bool:
            self.run.alive(vma)
            return any(other is vma for other in vma.raw_mm().raw_vmas())

        return self._try(self._lock("vma", vma), False, attached)

    def vma_start_write(self, vma: Any) -> None:
        run = self.run
        task = run.task
        if task is None:
            return
        lock = self._lock("vma", vma)
        if lock.writer is task:
            return
        mmap = self._lock("mmap_lock", vma.vm_mm)
        if mmap.writer is not task:
            raise Violation(LOCK_RULE, f"{task.name} locks {run.name(vma)} for writing without its mmap lock")
        self._acquire(lock, True)
        task.vma_writes.append((mmap, lock))

    def _rmap_lock(self, anon_vma: Any) -> ModelLock:
        root = getattr(anon_vma, "root", anon_vma)
        if self.run.task is not None:
            self.run.alive(anon_vma)
            self.run.alive(root)
        if root is None:
            raise Violation(BAD_DEREFERENCE, f"{self.run.name(anon_vma)} has no root yet")
        lock = self._lock("anon_vma", root)
        lock.owner = root
        return lock

    def anon_vma_read(self, anon_vma: Any) -> Any:
        return self._acquire(self._rmap_lock(anon_vma), False) if self.run.task is not None else _NOTHING

    def anon_vma_write(self, anon_vma: Any) -> Any:
        return self._acquire(self._rmap_lock(anon_vma), True) if self.run.task is not None else _NOTHING

    def anon_vma_trylock_read(self, anon_vma: Any) -> Any:
        return self._try(self._rmap_lock(anon_vma), False) if self.run.task is not None else _NOTHING

    def anon_vma_drain(self, anon_vma: Any) -> None:
        run = self.run
        task = run.task
        if task is None:
            return
        lock = self._rmap_lock(anon_vma)
        if any(held is lock for held in task.held):
            return
        run.point(f"is {lock.text} locked?")
        run.touch_lock(lock, TRY_WRITE)
        if not lock.free_for(True):
            with self._acquire(lock, True):
                pass

    def page_table(self, mm: Any, address: int) -> Any:
        run = self.run
        task = run.task
        if task is None:
            return _NOTHING
        i = address >> PMD_SHIFT
        lock = self._lock("ptl", mm, i)
        if lock.writer is task:
            raise Violation(LOCK_RULE, f"{task.name} takes {lock.text} twice")
        if not (task.lockless or self._keeps_tables(task, mm)):
            raise Violation(
                LOCK_RULE, f"{task.name} walks the page tables of {run.name(mm)} with neither mmap, VMA nor rmap lock"
            )
        guard = self._acquire(lock, True)
        run.visit(("tables", run.name(mm), i))
        return guard

    def _keeps_tables(self, task: Task, mm: Any) -> bool:
        for held in task.held:
            if held.kind == "anon_vma" or (held.kind == "mmap_lock" and held.subject is mm):
                return True
            if held.kind == "vma" and any(held.subject is vma for vma in mm.raw_vmas()):
                return True
        return False

    def page_table_lock(self, mm: Any) -> Any:
        return self._acquire(self._lock("page_table_lock", mm), True)

    def folio_list(self, members: Any) -> Any:
        return self._acquire(self._lock("folio_list", members), True)

    def folio(self, folio: Any) -> Any:
        return self._acquire(self._lock("folio", folio), True)

    def folio_trylock(self, folio: Any) -> Any:
        return self._try(self._lock("folio", folio), True)

    def rcu_read(self) -> Any:
        return _Section(self.run, "rcu") if self.run.task is not None else _NOTHING

    def lockless(self) -> Any:
        return _Section(self.run, "lockless") if self.run.task is not None else _NOTHING

    def retry_later(self, mm: Any) -> None:
        if self.run.task is not None:
            with self._acquire(self._lock("mmap_lock", mm), False):
                pass

    def free_pgtables(self, mm: Any, start: int, end: int) -> None:
        run = self.run
        task = run.task
        tables = _only_here(mm.raw_vmas(), start, end) if task is not None else range(0)
        if task is None or not tables:
            return
        name = run.name(mm)
        run.point(f"free page tables of {name}")
        run.touch((name, "tables"), WRITE)
        for other in run.tasks:
            if other is not task and other.visiting is not None:
                _, visited, i = other.visiting
                if visited == name and i in tables:
                    text = f"{task.name} frees page tables of {name} in which {other.name} walks"
                    raise Violation(USE_AFTER_FREE, text)


def _only_here(vmas: Any, start: int, end: int) -> range:
    """Indices of the page tables over [start, end) that no other VMA has a part in (free_pgd_range)"""
    first, last = start >> PMD_SHIFT, (end - 1) >> PMD_SHIFT
    slots = vars(type(vmas[0])) if vmas else {}
    for vma in vmas:
        low, high = (slots[name].slot.__get__(vma) for name in ("vm_start", "vm_end"))
        if high <= start:
            first = max(first, ((high - 1) >> PMD_SHIFT) + 1)
        elif low >= end:
            last = min(last, (low >> PMD_SHIFT) - 1)
    return range(first, last + 1)
