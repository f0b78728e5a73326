# SPDX-License-Identifier: GPL-2.0-only
"""One replay of a trace under one design, and several of them side by side in processes."""

import gc
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rmaplab.designs.registry import make_design
from rmaplab.mm.kernel import Kernel
from rmaplab.mm.profile import KernelProfile
from rmaplab.mm.slab import SlabSize
from rmaplab.replay.replayer import Replayer
from rmaplab.replay.series import Series
from rmaplab.replay.truth import TruthReport, check_truth
from rmaplab.trace.schema import Trace

__all__ = ["DesignRun", "in_processes", "no_gc", "replay_by_process", "replay_design"]


@dataclass(slots=True)
class DesignRun:
    """What one replay gives.

    locks: acquisitions by kind
    anon_pages_peak: most pages of anonymous memory mapped at once
    problems: rows that could not be applied, by reason
    caches: caches that the design has of its own, with their sizes, in the order of `series`
    """

    design: str
    series: Series
    locks: dict[str, int] = field(default_factory=dict)
    problems: dict[str, int] = field(default_factory=dict)
    vma_fields: dict[str, int] = field(default_factory=dict)
    caches: dict[str, SlabSize] = field(default_factory=dict)
    truth: TruthReport | None = None


@contextmanager
def no_gc() -> Iterator[None]:
    """Without the cyclic garbage collector, which a replay's millions of live objects would keep busy for nothing:
    what is freed is freed by reference counts."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def replay_design(trace: Trace, design: str, profile: KernelProfile, *, with_truth: bool = False) -> DesignRun:
    """Replay `trace` under `design`; with the comparison against the kernel's own slab events if asked to."""
    hooks = make_design(design)
    fields: dict[str, int] = getattr(hooks, "vma_fields", dict)()
    with no_gc():
        if with_truth:
            series = Series()
            truth, kernel = check_truth(trace, hooks, profile, series)
            return DesignRun(design, series, kernel.locks.counts(), truth.problems, fields, truth=truth)
        kernel = Kernel(hooks, profile, thp=trace.meta.thp or "madvise")
        replayer = Replayer(kernel, trace)
        series = Series(len(kernel.slabs))
        replayer.run(series)
        caches = {slab.name: slab.size for slab in kernel.slabs if slab.size is not None}
        return DesignRun(design, series, kernel.locks.counts(), dict(replayer.problems), fields, caches)


def replay_by_process(trace: Trace, design: str, profile: KernelProfile, until: int) -> dict[int, tuple[int, ...]]:
    """Live objects of each cache after row `until`, by the pid of the process that they were allocated for (a fork
    allocates for its child)."""
    with no_gc():
        kernel = Kernel(make_design(design), profile, thp=trace.meta.thp or "madvise")
        replayer = Replayer(kernel, trace)
        log = kernel.log_slabs()
        owners: dict[Any, tuple[int, int]] = {}
        columns = trace.columns
        for row in range(until + 1):
            op = columns["op"][row]
            replayer.apply(row, op)
            if log:
                pid = columns["peer"][row] if op == "fork" and columns["peer"][row] else columns["pid"][row]
                for alloc, cache, obj in log:
                    if alloc:
                        owners[obj] = pid, cache
                    else:
                        owners.pop(obj, None)
                log.clear()
    counts: dict[int, list[int]] = {}
    for pid, cache in owners.values():
        counts.setdefault(pid, [0] * len(kernel.slabs))[cache] += 1
    return {pid: tuple(c) for pid, c in counts.items()}


_task: Callable[[int], Any] | None = None


def _call(i: int) -> Any:
    assert _task is not None
    return _task(i)


def in_processes(jobs: Sequence[Callable[[], Any]]) -> list[Any]:
    """The results of `jobs`, run in forked processes, as many at once as there are CPUs. They inherit the trace."""
    global _task
    workers = min(len(jobs), len(os.sched_getaffinity(0)))
    if workers < 2:
        return [job() for job in jobs]
    _task = lambda i: jobs[i]()  # noqa: E731
    try:
        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("fork")) as pool:
            return list(pool.map(_call, range(len(jobs))))
    finally:
        _task = None
