# SPDX-License-Identifier: GPL-2.0-only
"""The scenarios: right under every design, each operation does something, and the operations that they alone have."""

from functools import partial

import pytest

from rmaplab.check.history import run_history
from rmaplab.designs.registry import make_design
from rmaplab.mm.kernel import Kernel
from rmaplab.mm.pagetable import ENTRY_SHIFT
from rmaplab.mm.slab import UseAfterFree
from rmaplab.workload.random_ops import HEAP, SMALL, Op
from rmaplab.workload.scenarios import SCENARIOS
from rmaplab.workload.walk_ops import WalkWorld, describe
from tests.support.designs import DESIGNS

State = object


def state(world: WalkWorld) -> State:
    """Everything that an operation could change: VMAs, entries, what they name, KSM and swap, locks taken."""
    kernel = world.kernel
    return (
        {
            number: ([(v.vm_start, v.vm_end, v.vm_pgoff, v.vm_flags) for v in mm.vmas], dict(mm.anon_entries()))
            for number, mm in world.mms.items()
        },
        [(folio.pfn, folio.nr_pages, folio.mapcount, folio.index) for folio in kernel.mem.folios()],
        len(kernel.ksm.items),
        dict(kernel.swap.counts),
    )


@pytest.mark.parametrize("design", DESIGNS)
def test_no_scenario_breaks_a_design(design: str) -> None:
    for name, history in SCENARIOS.items():
        failure = run_history(partial(make_design, design), history)
        assert failure is None, (name, failure)


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_operation_does_something(name: str) -> None:
    """A scenario whose case never comes about would go unnoticed: nothing it does can fail."""
    world = WalkWorld(Kernel(make_design("anon_vma"), contents=True))
    for op in SCENARIOS[name]:
        before = state(world)
        world.apply(op)
        assert state(world) != before, describe(op)
        world.check()
    world.exit_all()


def test_execve_replaces_the_address_space() -> None:
    """The old pages go; the argument page has moved with the stack and keeps its index."""
    world = WalkWorld(Kernel(make_design("anon_vma"), contents=True))
    old = world.mms[1]
    for op in (*SCENARIOS["write"][:2], Op(1, "execve", (500,))):
        world.apply(op)
        world.check()
    new = world.mms[1]
    assert new is not old
    (stack,) = new.vmas
    ((vpn, entry),) = new.anon_entries()
    assert vpn << 12 == stack.vm_end - 4096
    folio = world.kernel.mem.pages[entry >> ENTRY_SHIFT]
    assert folio is not None
    assert folio.index == vpn + 500 == stack.vm_pgoff + 32
    assert new.brk == HEAP << 12
    world.apply(Op(1, "mmap", SCENARIOS["write"][0].args))
    world.apply(Op(1, "store", (SMALL, 1, 5)))
    world.check()
    world.exit_all()


@pytest.mark.parametrize("last", [Op(1, "exit"), Op(1, "execve", (500,))], ids=lambda op: op.name)
def test_nobody_may_look_into_an_address_space_that_is_gone(last: Op) -> None:
    """Else a design that keeps a pointer to an mm_struct too long passes, since its tree is empty."""
    world = WalkWorld(Kernel(make_design("anon_vma"), contents=True))
    gone = world.mms[1]
    for op in (*SCENARIOS["fork"][:3], last):
        world.apply(op)
    for look in (gone.vma_lookup, gone.find_vma, partial(gone.vmas_in, end=1 << 40)):
        with pytest.raises(UseAfterFree, match="mm 1 was freed"):
            look(0)  # type: ignore[operator]
    world.check()


def test_execve_is_described() -> None:
    assert describe(Op(2, "execve", (500,))) == "2: execve(stack moves down 500 pages)"
