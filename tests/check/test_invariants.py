# SPDX-License-Identifier: GPL-2.0-only
"""Each invariant by name, violated on purpose: by a design with a mistake, or by code that is no kernel's."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from rmaplab.check import engine
from rmaplab.check.execution import Execution, Laboratory
from rmaplab.check.explore import dpor
from rmaplab.check.explore.result import Budget
from rmaplab.check.ops import Machine
from rmaplab.check.violation import (
    ALLOCATION_MAY_FAIL,
    BAD_DEREFERENCE,
    COW_ISOLATION,
    DEADLOCK,
    INVARIANTS,
    KERNEL_BUG,
    LEAK,
    LOCK_ORDER,
    LOCK_RULE,
    MAPCOUNT,
    REFCOUNT,
    SLEEP_IN_RCU,
    STEP_BOUND,
    USE_AFTER_FREE,
    WALK_MISSES_PTE,
    WALK_WRONG_VMA,
    Violation,
)
from rmaplab.check.world import World, parse_world
from rmaplab.designs.anon_vma import AnonVmaDesign
from rmaplab.mm.bug import KernelBug

Body = Callable[[Machine, int], None]
"""What a CPU does instead of its operations."""


def world(setup: list[str], cpu0: list[str], cpu1: list[str], **more: Any) -> World:
    return parse_world("test", {"setup": setup, "cpu0": cpu0, "cpu1": cpu1, **more})


MAPPED = ["A: mmap p0 1", "A: write p0"]


def violated(place: World, make: Callable[[], Any] = AnonVmaDesign, body: Body | None = None) -> Violation:
    """What dpor finds; with `body`, where each CPU executes it."""

    class Toy(Execution):
        def _body(self, operations: Any) -> Callable[[], None]:
            if body is None:
                return super()._body(operations)

            def run() -> None:
                task = self.run.task
                assert task is not None
                body(self.machine, task.index)

            return run

    class Lab(Laboratory):
        def execute(self, report: bool = False) -> Execution:
            return Toy(self, report)

    with Lab(place, make) as laboratory:
        try:
            result = dpor.explore(laboratory, Budget(executions=500))
        except Violation as violation:
            return violation
    assert result.found, f"nothing found in {result.executions} executions"
    return result.found[0].violation


def changed(**methods: Any) -> Callable[[], Any]:
    """Mainline with other methods, each of which gets the design before its arguments."""

    def make() -> Any:
        design: Any = AnonVmaDesign()
        for name, function in methods.items():
            original = getattr(design, name)
            setattr(design, name, lambda *args, f=function, o=original, **kw: f(o, *args, **kw))
        return design

    return make


def locks(machine: Machine) -> Any:
    return machine.kernel.locks


TWO = world(MAPPED, ["A: read p0"], ["A: read p0"])


def test_lock_rule() -> None:
    """Both change a VMA's flags, with no lock at all."""

    def body(machine: Machine, cpu: int) -> None:
        machine.mms["A"].raw_vmas()[0].vm_flags = cpu

    assert violated(TWO, body=body).name == LOCK_RULE


def test_lock_order() -> None:
    """One after the other, so that nothing ever waits: lockdep sees it all the same."""

    def body(machine: Machine, cpu: int) -> None:
        mm = machine.mms["A"]
        folio = machine.kernel.mem.folios()[0]
        if cpu:
            with locks(machine).folio(folio), locks(machine).mmap_read(mm):
                pass
        else:
            with locks(machine).mmap_read(mm), locks(machine).folio(folio):
                pass

    assert violated(TWO, body=body).name == LOCK_ORDER


def test_deadlock() -> None:
    """Two locks of one kind, which the order of kinds does not forbid, crosswise."""
    place = world([*MAPPED, "A: mmap p4 1", "A: write p4"], ["A: read p0"], ["A: read p0"])

    def body(machine: Machine, cpu: int) -> None:
        one, other = machine.kernel.mem.folios()[:: -1 if cpu else 1]
        with locks(machine).folio(one), locks(machine).folio(other):
            pass

    assert violated(place, body=body).name == DEADLOCK


@pytest.mark.parametrize("section", ["rcu_read", "page_table"])
def test_sleep_in_rcu(section: str) -> None:
    """A lock that may sleep in an RCU section, or under a spinlock."""

    def body(machine: Machine, cpu: int) -> None:
        mm = machine.mms["A"]
        folio = machine.kernel.mem.folios()[0]
        with locks(machine).mmap_read(mm):
            inner = locks(machine).rcu_read() if section == "rcu_read" else locks(machine).page_table(mm, 0x10000 << 12)
            with inner, locks(machine).folio(folio):
                pass

    assert violated(TWO, body=body).name == SLEEP_IN_RCU


def test_use_after_free() -> None:
    """A walk that does not ask again whether the folio is mapped, and takes a reference in vain."""

    def read(original: Any, folio: Any, *args: Any, **kw: Any) -> Iterator[Any]:
        anon_vma = folio.mapping
        if folio.mapcount:
            for avc in list(anon_vma.avcs):
                yield avc.vma, avc.vma.vm_start

    found = violated(world(MAPPED, ["referenced A p0"], ["A: munmap p0 1"]), changed(rmap_walk_anon=read))
    assert found.name in (USE_AFTER_FREE, LOCK_RULE)

    def reach(machine: Machine, cpu: int) -> None:
        vma = machine.mms["A"].raw_vmas()[0]
        machine.kernel.vm_area_struct.free(vma)
        _ = vma.anon_vma

    assert violated(TWO, body=reach).name == USE_AFTER_FREE


def test_use_after_free_at_the_end() -> None:
    """Nobody reached it: a folio is mapped and names what was freed."""

    def free(machine: Machine, cpu: int) -> None:
        if not cpu:
            machine.kernel.anon_vma.free(machine.kernel.mem.folios()[0].mapping)

    assert violated(TWO, body=free).name == USE_AFTER_FREE


def test_walk_misses_pte() -> None:
    def nothing(original: Any, folio: Any, *args: Any, **kw: Any) -> Iterator[Any]:
        yield from ()

    found = violated(world(MAPPED, ["referenced A p0"], ["A: read p0"]), changed(rmap_walk_anon=nothing))
    assert found.name == WALK_MISSES_PTE
    assert "all the time" in found.text  # seen by the monitor of the walk, not at the end


def test_walk_wrong_vma() -> None:
    def outside(original: Any, folio: Any, *args: Any, **kw: Any) -> Iterator[Any]:
        for vma, address in original(folio, *args, **kw):
            yield vma, address + 4096

    found = violated(world(MAPPED, ["referenced A p0"], ["A: read p0"]), changed(rmap_walk_anon=outside))
    assert found.name == WALK_WRONG_VMA


def test_cow_isolation() -> None:
    """A store goes to a page that both map."""

    def body(machine: Machine, cpu: int) -> None:
        if cpu:
            return
        mm = machine.mms["A"]
        folio = machine.kernel.mem.folios()[0]
        machine.kernel.mem.contents[folio.pfn] = 7  # type: ignore[index]
        machine.wrote[7] = [(machine.mms["B"], 0x10000)]
        assert mm is not None

    place = world([*MAPPED, "A: fork B"], ["A: read p0"], ["B: read p0"])
    assert violated(place, body=body).name == COW_ISOLATION


@pytest.mark.parametrize(("method", "name"), [("add_rmap", MAPCOUNT), ("get", REFCOUNT)])
def test_counts(method: str, name: str) -> None:
    def body(machine: Machine, cpu: int) -> None:
        if not cpu:
            getattr(machine.kernel.mem.folios()[0], method)()

    assert violated(TWO, body=body).name == name


def test_leak() -> None:
    def keep(original: Any, folio: Any) -> Any:
        return None  # put_anon_vma

    found = violated(world(MAPPED, ["migrate A p0"], ["A: read p0"]), changed(put_anon_vma=keep))
    assert found.name == LEAK


def test_allocation_may_fail() -> None:
    """A split that finds no memory takes the whole VMA's protection away."""

    place = world(["A: mmap p0 2", "A: write p1"], ["A: mprotect p0 1 r"], ["referenced A p1"], fail=1)

    def clone(original: Any, dst: Any, src: Any) -> None:
        try:
            original(dst, src)
        except Exception:
            locks = src.vm_mm.kernel.locks
            locks.vma_start_write(src)
            src.vm_flags = 0
            raise

    assert violated(place, changed(anon_vma_clone=clone)).name == ALLOCATION_MAY_FAIL


def test_step_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """It spins for what never comes."""
    monkeypatch.setattr(engine, "STEPS", 50)

    def body(machine: Machine, cpu: int) -> None:
        folio = machine.kernel.mem.folios()[0]
        while folio.mapcount and not cpu:
            pass

    assert violated(TWO, body=body).name == STEP_BOUND


def test_kernel_bug() -> None:
    def bug(original: Any, folio: Any) -> Any:
        raise KernelBug("VM_BUG_ON_FOLIO")

    place = world(MAPPED, ["migrate A p0"], ["A: read p0"])
    assert violated(place, changed(folio_get_anon_vma=bug)).name == KERNEL_BUG


def test_bad_dereference() -> None:
    """A tagged word is taken for an anon_vma."""

    def move(original: Any, folio: Any, vma: Any) -> None:
        vma.anon_vma.tagged.parent  # noqa: B018

    place = world([*MAPPED, "A: fork B", "B: exit"], ["A: write p0"], ["A: read p0"])
    assert violated(place, changed(folio_move_anon_rmap=move)).name == BAD_DEREFERENCE


def test_every_invariant_has_a_test() -> None:
    tested = {
        *(LOCK_RULE, LOCK_ORDER, DEADLOCK, SLEEP_IN_RCU, USE_AFTER_FREE, WALK_MISSES_PTE, WALK_WRONG_VMA),
        *(COW_ISOLATION, REFCOUNT, MAPCOUNT, LEAK, ALLOCATION_MAY_FAIL, STEP_BOUND, KERNEL_BUG, BAD_DEREFERENCE),
    }
    assert tested == set(INVARIANTS)
