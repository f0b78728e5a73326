# SPDX-License-Identifier: GPL-2.0-only
"""`compare` on a small trace whose figures are worked out by hand, and on recordings against themselves."""

from itertools import groupby

import pytest

from rmaplab.designs.registry import design_names
from rmaplab.mm.kernel import CACHE_NAMES
from rmaplab.mm.profile import V6_18
from rmaplab.replay.compare import CacheFigures, Comparison, compare, slab_sizes
from rmaplab.trace.schema import Meta, Trace

from .handmade import Run
from .recordings import bundled

VMA, ANON_VMA, AVC = CACHE_NAMES
LAZY = "anon_vma_lazy"


def fork_and_exit() -> Trace:
    """A program with its stack and one written mapping forks once; child, then parent exit."""
    run = Run(processes=[{"pid": 1, "comm": "parent", "parent": 0}, {"pid": 2, "comm": "child", "parent": 1}])
    run.mmap(0x10, 4, kernel="+v1")
    run.write(0x11, kernel="+c2 +a3")
    run.fork(2, kernel="+v11 +c12 +a13 +c14 +v15 +c16 +a17 +c18")
    run.exit(tid=2, kernel="-c12 -a13 -c14 -c16 -a17 -c18 -v11 -v15")
    run.exit(kernel="-a3 -c2 -a9003 -c9002 -v1 -v9001")
    return run.trace


def objects(comparison: Comparison, moment: int, design: str) -> tuple[int, ...]:
    return tuple(figures.objects for figures in comparison.moments[moment].designs[design].values())


def test_figures_of_a_fork() -> None:
    """Objects at the peak, by the rules of both designs; the peak is mainline's, and before the child's exit."""
    trace = fork_and_exit()
    comparison = compare(trace, [LAZY], V6_18)
    peak, end = comparison.moments
    assert (peak.name, end.name) == ("peak", "end")
    assert (peak.row, peak.time_ns) == (4, 4_000_000)
    # mainline: 2 VMAs of each process; an anon_vma of each VMA; one AVC of a parent's VMA, two of a child's
    assert objects(comparison, 0, "anon_vma") == (4, 4, 6)
    # lazy: the parent's two VMAs were upgraded, the child's are linked with their anon_vmas and own none
    assert objects(comparison, 0, LAZY) == (4, 2, 4)
    assert objects(comparison, 1, "anon_vma") == objects(comparison, 1, LAZY) == (0, 0, 0)
    assert comparison.truth is not None and comparison.truth.exact
    assert comparison.designs == ["anon_vma", LAZY]


def test_bytes_and_pages() -> None:
    """A slot size taken for an object size, or pages not rounded up to whole slabs."""
    comparison = compare(fork_and_exit(), [], V6_18)
    figures = comparison.moments[0].designs["anon_vma"]
    assert figures == {
        VMA: CacheFigures(4, 4 * 192, 1),
        ANON_VMA: CacheFigures(4, 4 * 104, 1),  # the slot, not the 96 bytes of the object
        AVC: CacheFigures(6, 6 * 64, 1),
    }
    assert comparison.moments[1].designs["anon_vma"][VMA] == CacheFigures(0, 0, 0)


def test_peak_is_that_of_bytes_not_of_objects() -> None:
    """Many AVCs weigh less than few VMAs."""
    run = Run()
    for i in range(8):
        run.mmap(0x10 + 2 * i, 1, kernel=f"+v{i + 1}")
    before = len(run.trace) - 1
    run.munmap(0x10, 14, kernel=" ".join(f"-v{i + 1}" for i in range(7)))
    run.write(0x1E, kernel="+c21 +a22")
    comparison = compare(run.trace, [], V6_18)
    assert comparison.moments[0].row == before


def test_sizes_come_from_the_recording_or_the_profile() -> None:
    """Figures of one kernel printed as those of another."""
    sizes, source = slab_sizes(fork_and_exit().meta)
    assert (source, sizes[ANON_VMA].slot_size) == ("recording", 104)
    sizes, source = slab_sizes(Meta())
    assert source == "x86-64 6.18" and set(sizes) == set(CACHE_NAMES)
    _, source = slab_sizes(fork_and_exit().meta, "x86-64 6.18")
    assert source == "x86-64 6.18"


def test_mainline_is_always_there_and_no_design_twice() -> None:
    """Changes are relative to mainline, whatever was asked for."""
    assert compare(fork_and_exit(), [LAZY, "anon_vma", LAZY], V6_18).designs == ["anon_vma", LAZY]


def test_processes_of_a_fork() -> None:
    """A child's objects counted as its parent's."""
    comparison = compare(fork_and_exit(), [LAZY], V6_18, by_process=True)
    child, parent = comparison.processes
    assert (parent.pid, parent.comm, child.pid, child.comm) == (1, "parent", 2, "child")
    assert parent.designs["anon_vma"] == {VMA: 2, ANON_VMA: 2, AVC: 2}
    assert child.designs["anon_vma"] == {VMA: 2, ANON_VMA: 2, AVC: 4}
    assert parent.designs[LAZY] == {VMA: 2, ANON_VMA: 0, AVC: 0}
    assert child.designs[LAZY] == {VMA: 2, ANON_VMA: 2, AVC: 4}  # the fork made them


def test_processes_add_up_to_the_peak() -> None:
    """An object that belongs to no process, or to two, under any design."""
    comparison = compare(bundled("redis"), design_names(), V6_18, by_process=True)
    for design, caches in comparison.moments[0].designs.items():
        for cache, figures in caches.items():
            assert sum(p.designs[design][cache] for p in comparison.processes) == figures.objects, (design, cache)


def test_stretches_of_time_cover_the_peak() -> None:
    """A plot without the peak that the table shows, or with more than it."""
    trace = bundled("redis")
    comparison = compare(trace, [LAZY], V6_18, buckets=24)
    assert 0 < len(comparison.over_time) <= 24
    starts = [bucket.start_ns for bucket in comparison.over_time]
    assert starts == sorted(starts)
    peak = comparison.moments[0]
    total = sum(figures.bytes for figures in peak.designs["anon_vma"].values())
    # each cache's most in a stretch, added: at least what was live at once
    assert max(bucket.designs["anon_vma"] for bucket in comparison.over_time) >= total


@pytest.mark.parametrize("design", design_names())
def test_processes_add_up_at_every_peak(design: str) -> None:
    """The same on the trace worked out by hand, where the fork's objects change hands between two processes."""
    comparison = compare(fork_and_exit(), [design], V6_18, by_process=True)
    for cache, figures in comparison.moments[0].designs[design].items():
        assert sum(process.designs[design].get(cache, 0) for process in comparison.processes) == figures.objects, cache


def test_stretches_of_a_fork() -> None:
    """Bytes over time with stretches so short that each holds one row, by the slots of the handmade recording: 192 a
    VMA, 104 an anon_vma, 64 an AVC."""
    comparison = compare(fork_and_exit(), [LAZY], V6_18, buckets=1000)
    # the written stack; a VMA more; its first write; the fork; the child has gone; the parent, too
    written = 192 + 104 + 64
    expected = {
        "anon_vma": [written, written + 192, 2 * written, 4 * 192 + 4 * 104 + 6 * 64, 2 * written, 0],
        # two lazy VMAs until the fork upgrades them
        LAZY: [192, 2 * 192, 4 * 192 + 2 * 104 + 4 * 64, 2 * written, 0],
    }
    for design, levels in expected.items():
        assert [most for most, _ in groupby(bucket.designs[design] for bucket in comparison.over_time)] == levels


def test_change_is_of_bytes_at_the_same_row() -> None:
    """A design's own peak taken instead of its state at mainline's."""
    comparison = compare(fork_and_exit(), [LAZY], V6_18)
    base, lazy = (sum(f.bytes for f in comparison.moments[0].designs[d].values()) for d in ("anon_vma", LAZY))
    assert (base, lazy) == (1568, 1232)


def test_rows_that_no_replay_can_use() -> None:
    """A recording that missed its program: no figures, but the reason."""
    trace = Trace.empty(Meta(kernel="6.18.0"))
    trace.append("exit", time=5, tid=7, pid=7, call=1, quiescent=True)
    comparison = compare(trace, [LAZY], V6_18, by_process=True, buckets=3, cost=True)
    assert objects(comparison, 0, LAZY) == (0, 0, 0)
    assert set(comparison.problems) == {"anon_vma", LAZY}
    assert comparison.processes == []


def test_empty_trace() -> None:
    """A recording without rows must give an empty table, not a traceback."""
    comparison = compare(Trace.empty(Meta()), [LAZY], V6_18, by_process=True, buckets=5)
    assert objects(comparison, 0, LAZY) == (0, 0, 0)
    assert comparison.truth is None
    assert comparison.processes == comparison.over_time == []
