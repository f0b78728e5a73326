# SPDX-License-Identifier: GPL-2.0-only
"""The generated system: deterministic, a valid trace under every design, and of the shape that was asked for."""

from dataclasses import replace
from pathlib import Path

import pytest

from rmaplab.designs.anon_vma import AnonVmaDesign
from rmaplab.designs.anon_vma_check import check_anon_vmas
from rmaplab.designs.registry import make_design
from rmaplab.mm import flags as fl
from rmaplab.mm.kernel import Kernel
from rmaplab.replay.replayer import Replayer
from rmaplab.synth.android import AFTER_BOOT, Generated, after_applications, generate
from rmaplab.synth.parameters import AndroidParameters, Shape
from rmaplab.synth.process import Rounder
from rmaplab.trace.store import read_trace, write_trace
from rmaplab.workload.oracle import check_folios, missed_by_walks
from tests.support.designs import DESIGNS

SMALL = AndroidParameters(scale=0.02, watchers=0.125, passing_forks=0.125, boot_forks=0.1)


def replay(generated: Generated, design: str = "anon_vma") -> Replayer:
    replayer = Replayer(Kernel(make_design(design), thp=generated.trace.meta.thp), generated.trace)
    replayer.run()
    return replayer


def test_same_seed_same_trace() -> None:
    """A choice that comes from a set's order or from the clock."""
    assert generate(SMALL).trace.columns == generate(SMALL).trace.columns


def test_another_seed_another_trace_of_the_same_size() -> None:
    """A seed that changes nothing, or one that decides how large the system is."""
    one, other = generate(SMALL), generate(replace(SMALL, seed=2))
    assert one.trace.columns != other.trace.columns
    for name in ("vm_area_struct", "anon_vma", "anon_vma_chain"):
        ones, others = (getattr(replay(g).kernel, name).live for g in (one, other))
        assert abs(others / ones - 1) < 0.02


@pytest.mark.parametrize("design", DESIGNS)
def test_valid_under_every_design(design: str) -> None:
    """Rows that no kernel would have let succeed; address spaces, folios and walks are checked at the end."""
    replayer = replay(generate(SMALL), design)
    mms = replayer.live_mms()
    assert not replayer.problems
    assert not replayer.range_differs
    for mm in mms:
        mm.check()
    check_folios(replayer.kernel, mms)
    assert not missed_by_walks(replayer.kernel, mms)


def test_mainline_counts_agree() -> None:
    """Chains and counters of mainline that do not fit the VMAs of so many related processes."""
    replayer = replay(generate(SMALL))
    assert isinstance(replayer.kernel.hooks, AnonVmaDesign)
    check_anon_vmas(replayer.kernel.hooks, replayer.live_mms())


@pytest.mark.parametrize("design", DESIGNS)
def test_nothing_is_left_after_all_exit(design: str) -> None:
    """A process that the generator forgets to end, or objects that a design does."""
    replayer = replay(generate(replace(SMALL, teardown=True)), design)
    assert not replayer.problems
    assert not replayer.live_mms()
    assert [slab.live for slab in replayer.kernel.slabs] == [0] * len(replayer.kernel.slabs)
    assert replayer.kernel.mem.live == 0


def test_every_fault_is_one_that_a_kernel_takes() -> None:
    """Write faults where nothing may be written: they would be SIGSEGV, and count for nothing."""
    generated = generate(SMALL)
    replayer = Replayer(Kernel(make_design("anon_vma"), thp="never"), generated.trace)
    columns = generated.trace.columns
    for row, op in enumerate(columns["op"]):
        if op == "fault":
            mm = replayer.tasks[columns["tid"][row]].mm
            assert mm is not None
            vma = mm.vma_lookup(columns["addr"][row])
            assert vma is not None, f"row {row}: no VMA"
            assert vma.vm_flags & (fl.VM_WRITE | fl.VM_SHARED) == fl.VM_WRITE, f"row {row}: {vma}"
        replayer.apply(row, op)


def test_boot_is_a_prefix() -> None:
    """Applications that change what happened before they were opened."""
    boot = generate(replace(SMALL, applications=0))
    apps = generate(SMALL)
    assert list(boot.points) == [AFTER_BOOT]
    assert list(apps.points) == [AFTER_BOOT, after_applications(24)]
    rows = boot.points[AFTER_BOOT] + 1
    assert len(boot.trace) == rows
    for name in ("op", "tid", "addr", "len", "flags"):
        assert boot.trace.columns[name] == apps.trace.columns[name][:rows]


def test_tree_of_processes() -> None:
    """Parents that are not those of an Android system."""
    meta = generate(SMALL).trace.meta
    comm = {p["pid"]: p["comm"] for p in meta.processes}
    parents = {p["comm"]: comm.get(p["parent"]) for p in meta.processes}
    assert parents["init"] is None
    assert parents["zygote64"] == parents["service0"] == "init"
    assert parents["system_server"] == parents["webview_zygote"] == parents["boot0"] == parents["app0"] == "zygote64"
    assert [p for c, p in parents.items() if c.startswith("renderer")] == ["webview_zygote"] * 3
    watchers = [p for c, p in parents.items() if c.startswith("app") and c.endswith(":watch")]
    assert len(watchers) == 6  # three that stay, three that are gone
    assert all(p is not None and p.startswith("app") for p in watchers)


def test_applications_are_forked_without_exec() -> None:
    """An execve in an application would throw away what it inherits."""
    trace = generate(SMALL).trace
    comm = {p["pid"]: p["comm"] for p in trace.meta.processes}
    executed = {comm[pid] for pid, op in zip(trace.columns["pid"], trace.columns["op"], strict=True) if op == "exec"}
    assert executed == {"init", "zygote64", *(c for c in comm.values() if c.startswith("service"))}


def test_passing_fork_leaves_nothing_on_mainline() -> None:
    """The before columns must not show a child that is gone (docs/synth-android.md relies on it)."""
    without = replay(generate(replace(SMALL, passing_forks=0)))
    with_forks = replay(generate(replace(SMALL, passing_forks=0.5)))
    for before, after in zip(without.kernel.slabs, with_forks.kernel.slabs, strict=True):
        assert abs(after.live / before.live - 1) < 0.003  # the whole numbers fall a little differently
    lazy = [replay(generate(replace(SMALL, passing_forks=share)), "anon_vma_lazy") for share in (0, 0.5)]
    assert lazy[1].kernel.anon_vma.live > 1.5 * lazy[0].kernel.anon_vma.live


def test_marked_synthetic_in_the_file(tmp_path: Path) -> None:
    """A trace that could be taken for a recording."""
    generated = generate(SMALL)
    write_trace(generated.trace, tmp_path / "android.parquet")
    trace = read_trace(tmp_path / "android.parquet")
    assert trace.meta.synthetic
    assert "SYNTHETIC" in trace.meta.source
    assert not trace.meta.truth
    assert trace.meta.page_size == 4096
    assert trace.meta.slabs["anon_vma"]["slot_size"] == 128
    assert trace.columns == generated.trace.columns


def test_sharing_is_what_was_asked_for() -> None:
    """Runs of neighbours that do not share, or share with more than their own run."""
    parameters = AndroidParameters(scale=0.2, applications=0, sharing=0.3, split=0)
    replayer = replay(generate(parameters))
    single = [v for mm in replayer.live_mms() for v in mm.vmas if v.anon_vma is not None and len(v.anon_vma_chain) == 1]
    share = 1 - len({v.anon_vma for v in single}) / len(single)
    assert 0.27 < share < 0.31


def test_shape_counts() -> None:
    """A property that calibration relies on and the generator does not keep."""
    shape = Shape(libraries=4, threads=3, heaps=20, files=10)
    assert (shape.vmas, shape.touched) == (56, 35)
    base = AndroidParameters(services=1, applications=0, boot_processes=0, sharing=0, service=Shape(0, 0, 20, 10))
    more = replace(base, service=Shape(4, 3, 40, 20))
    counts = []
    for parameters in (base, more):
        replayer = replay(generate(replace(parameters, zygote=Shape(0, 0, 20, 50), first_written=0, passing=0)))
        service = next(p["pid"] for p in replayer.trace.meta.processes if p["comm"] == "service0")
        mm = next(m for m, pid in replayer.owners.items() if pid == service)
        counts.append((len(mm.vmas), sum(v.anon_vma is not None for v in mm.vmas)))
    assert counts[1][0] - counts[0][0] == more.service.vmas - base.service.vmas
    assert counts[1][1] - counts[0][1] == more.service.touched - base.service.touched


def test_rounder_keeps_the_sum() -> None:
    """Whole numbers that drift away from their means."""
    rounder = Rounder()
    taken = [rounder.take("a", 0.3) for _ in range(100)]
    assert sum(taken) == 30
    assert set(taken) == {0, 1}
    assert rounder.take("b", 2) == 2
