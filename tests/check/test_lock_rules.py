# SPDX-License-Identifier: GPL-2.0-only
"""The rule book: each row of docs/check-rules.md is broken by a few lines, and what obeys is left alone."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rmaplab.check.execution import Execution, Laboratory
from rmaplab.check.explore import dfs, dpor
from rmaplab.check.explore.result import Budget, Result
from rmaplab.check.ops import Machine
from rmaplab.check.violation import INVARIANTS, Violation
from rmaplab.check.world import parse_world
from rmaplab.designs.anon_vma import AnonVmaDesign

DOC = Path(__file__).parents[2] / "docs" / "check-rules.md"
ADDRESS = 0x10000 << 12
VPN = 0x10000
WORLD = parse_world("test", {"setup": ["A: mmap p0 1", "A: write p0"], "cpu0": ["A: read p0"], "cpu1": ["A: read p0"]})


class Cpu:
    """What a test's code sees."""

    def __init__(self, machine: Machine, number: int) -> None:
        self.number = number
        self.kernel = machine.kernel
        self.locks: Any = machine.kernel.locks
        self.mm: Any = machine.mms["A"]
        self.vma: Any = self.mm.raw_vmas()[0]
        self.folio = dict.__getitem__(self.mm.raw_pgd(), VPN >> 9) and machine.kernel.mem.folios()[0]


def explore(code: Callable[[Cpu], None], explorer: Any = dpor) -> Result | Violation:
    """Both CPUs execute `code`."""

    class Toy(Execution):
        def _body(self, operations: Any) -> Callable[[], None]:
            def run() -> None:
                task = self.run.task
                assert task is not None
                code(Cpu(self.machine, task.index))

            return run

    class Lab(Laboratory):
        def execute(self, report: bool = False) -> Execution:
            return Toy(self, report)

    with Lab(WORLD, AnonVmaDesign) as laboratory:
        return explorer.explore(laboratory, Budget(executions=300), all_violations=True)


# --- code that breaks a rule


def read_vma_unlocked(cpu: Cpu) -> None:
    assert cpu.vma.vm_start


def write_vma_mmap_only(cpu: Cpu) -> None:
    with cpu.locks.mmap_write(cpu.mm):
        cpu.vma.vm_flags = 0


def write_vma_downgraded(cpu: Cpu) -> None:
    with cpu.locks.mmap_write(cpu.mm):
        cpu.locks.vma_start_write(cpu.vma)
        cpu.locks.mmap_write_downgrade(cpu.mm)
        cpu.vma.vm_flags = 0


def read_tree_unlocked(cpu: Cpu) -> None:
    cpu.mm.vma_lookup(ADDRESS)


def write_tree_read_locked(cpu: Cpu) -> None:
    with cpu.locks.mmap_read(cpu.mm):
        cpu.mm.remove(cpu.vma)


def lock_vma_without_mmap(cpu: Cpu) -> None:
    cpu.locks.vma_start_write(cpu.vma)


def walk_tables_unlocked(cpu: Cpu) -> None:
    with cpu.locks.page_table(cpu.mm, ADDRESS):
        pass


def write_pte_unlocked(cpu: Cpu) -> None:
    with cpu.locks.mmap_read(cpu.mm):
        table = cpu.mm.pgd[VPN >> 9]
        table[VPN] = table[VPN]


def free_walked_tables(cpu: Cpu) -> None:
    if cpu.number:
        with cpu.locks.mmap_write(cpu.mm):
            cpu.locks.vma_start_write(cpu.vma)
            cpu.mm.remove(cpu.vma)
            cpu.locks.free_pgtables(cpu.mm, ADDRESS, ADDRESS + 4096)
            cpu.mm.insert(cpu.vma)
    else:
        with cpu.locks.lockless():
            assert cpu.mm.pgd.get(VPN >> 9) is not None
            cpu.folio.ref_count()


def race(cpu: Cpu) -> None:
    cpu.folio.ref_count()
    cpu.folio.index = cpu.number


def take_twice(cpu: Cpu) -> None:
    with cpu.locks.folio(cpu.folio), cpu.locks.folio(cpu.folio):
        pass


def sleep_in_rcu(cpu: Cpu) -> None:
    with cpu.locks.rcu_read(), cpu.locks.folio(cpu.folio):
        pass


def sleep_under_spinlock(cpu: Cpu) -> None:
    with cpu.locks.page_table_lock(cpu.mm), cpu.locks.folio(cpu.folio):
        pass


def two_orders(cpu: Cpu) -> None:
    anon_vma = cpu.vma.anon_vma
    if cpu.number:
        with cpu.locks.folio(cpu.folio), cpu.locks.anon_vma_read(anon_vma):
            pass
    else:
        with cpu.locks.anon_vma_read(anon_vma), cpu.locks.folio(cpu.folio):
            pass


def reach_after_section(cpu: Cpu) -> None:
    """The pointer is kept from one RCU section to the next."""
    if cpu.number:
        with cpu.locks.mmap_write(cpu.mm):
            cpu.locks.vma_start_write(cpu.vma)
            cpu.mm.remove(cpu.vma)
            cpu.kernel.vm_area_struct.free(cpu.vma)
    else:
        with cpu.locks.rcu_read():
            vma = cpu.mm.vma_lookup(ADDRESS)
        cpu.folio.ref_count()
        with cpu.locks.rcu_read():
            if vma is not None:
                assert vma.vm_mm is not None


def unlock_freed(cpu: Cpu) -> None:
    anon_vma = cpu.vma.anon_vma
    if cpu.number:
        cpu.kernel.anon_vma.free(anon_vma)
    else:
        with cpu.locks.anon_vma_read(anon_vma):
            cpu.folio.ref_count()


BROKEN: dict[str, Callable[[Cpu], None]] = {
    function.__name__: function
    for function in (
        read_vma_unlocked,
        write_vma_mmap_only,
        write_vma_downgraded,
        read_tree_unlocked,
        write_tree_read_locked,
        lock_vma_without_mmap,
        walk_tables_unlocked,
        write_pte_unlocked,
        free_walked_tables,
        race,
        take_twice,
        sleep_in_rcu,
        sleep_under_spinlock,
        two_orders,
        reach_after_section,
        unlock_freed,
    )
}


def rows() -> list[tuple[str, str]]:
    """(invariant, test) of each row of the table"""
    return re.findall(r"^\| .* \| .* \| ([a-z-]+) \| `([a-z_]+)` \|$", DOC.read_text(), re.M)


@pytest.mark.parametrize(("invariant", "test"), rows(), ids=lambda value: value)
def test_rule_is_enforced(invariant: str, test: str) -> None:
    result = explore(BROKEN[test])
    found = [result] if isinstance(result, Violation) else [f.violation for f in result.found]
    assert invariant in {violation.name for violation in found}, found


def test_table_is_complete() -> None:
    assert {test for _, test in rows()} == set(BROKEN)
    assert {invariant for invariant, _ in rows()} <= set(INVARIANTS)


# --- code that obeys


def read_vma(cpu: Cpu) -> None:
    with cpu.locks.mmap_read(cpu.mm):
        assert cpu.vma.vm_start
    with cpu.locks.anon_vma_read(cpu.vma.anon_vma):
        assert cpu.vma.vm_start
    with cpu.locks.rcu_read():
        guard = cpu.locks.vma_start_read(cpu.mm.vma_lookup(ADDRESS))
    if guard is not None:
        with guard:
            assert cpu.vma.vm_start
    with cpu.locks.lockless():
        assert cpu.vma.vm_start


def write_vma(cpu: Cpu) -> None:
    with cpu.locks.mmap_write(cpu.mm):
        cpu.locks.vma_start_write(cpu.vma)
        cpu.vma.vm_flags |= 0


def read_while_downgraded(cpu: Cpu) -> None:
    """Who waits for the mmap lock for reading, or for the VMA lock, goes on after the downgrade."""
    if cpu.number:
        with cpu.locks.mmap_write(cpu.mm):
            cpu.locks.vma_start_write(cpu.vma)
            cpu.vma.vm_flags |= 0
            cpu.locks.mmap_write_downgrade(cpu.mm)
            cpu.folio.ref_count()
            assert cpu.vma.vm_start
    else:
        with cpu.locks.mmap_read(cpu.mm):
            assert cpu.vma.vm_flags
            cpu.folio.ref_count()
            SEEN.add(cpu.locks._lock("mmap_lock", cpu.mm).readers[0].index)


SEEN: set[int] = set()
"""Who was the first of those that shared the mmap lock, in any execution."""


def test_readers_share_a_downgraded_lock() -> None:
    """Both CPUs are in at once, also with the one that downgraded there first: a downgrade that kept readers out, or
    that let the lock go, would never be seen so. (For `dpor` that is no other trace than one after the other.)"""
    SEEN.clear()
    result = explore(read_while_downgraded, dfs)
    assert isinstance(result, Result) and not result.found
    assert sorted(SEEN) == [0, 1]


def write_pte(cpu: Cpu) -> None:
    with cpu.locks.mmap_read(cpu.mm), cpu.locks.page_table(cpu.mm, ADDRESS):
        table = cpu.mm.pgd[VPN >> 9]
        table[VPN] = table[VPN]


def read_after_free(cpu: Cpu) -> None:
    """In the section in which it was found, a VMA stays."""
    if cpu.number:
        with cpu.locks.mmap_write(cpu.mm):
            cpu.locks.vma_start_write(cpu.vma)
            assert cpu.vma.vm_mm is cpu.mm
    else:
        with cpu.locks.rcu_read():
            vma = cpu.mm.vma_lookup(ADDRESS)
            cpu.folio.ref_count()
            assert vma is None or vma.vm_mm is cpu.mm


def under_folio_lock(cpu: Cpu) -> None:
    with cpu.locks.folio(cpu.folio):
        cpu.folio.index += 0


@pytest.mark.parametrize(
    "code", [read_vma, write_vma, read_while_downgraded, write_pte, read_after_free, under_folio_lock]
)
def test_what_obeys_is_left_alone(code: Callable[[Cpu], None]) -> None:
    result = explore(code)
    assert isinstance(result, Result), result
    assert not result.found, result.found[0].violation
