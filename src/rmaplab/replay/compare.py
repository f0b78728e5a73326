# SPDX-License-Identifier: GPL-2.0-only
"""The main job: one recording under several designs, their kernel objects side by side."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from operator import mul

from rmaplab.mm.kernel import CACHE_NAMES
from rmaplab.mm.profile import KernelProfile
from rmaplab.mm.slab import SLAB_PROFILES, SlabSize, slab_pages
from rmaplab.replay.cost import DesignCost, measure_cost
from rmaplab.replay.run import DesignRun, in_processes, replay_by_process, replay_design
from rmaplab.replay.series import Counts
from rmaplab.replay.truth import TruthReport
from rmaplab.trace.schema import Meta, Trace

__all__ = [
    "BASE",
    "Bucket",
    "CacheFigures",
    "Comparison",
    "Moment",
    "ProcessFigures",
    "compare",
    "grown_slot",
    "slab_sizes",
]

CACHE_LINE = 64
"""Bytes (x86-64, arm64)."""

BASE = "anon_vma"
"""The design that changes are relative to."""


@dataclass(frozen=True, slots=True)
class CacheFigures:
    """One slab cache at one moment.

    bytes: objects times the slot size
    pages: slab pages if the slabs are densely packed, the least that the objects can take
    """

    objects: int
    bytes: int
    pages: int


@dataclass(frozen=True, slots=True)
class Moment:
    """The caches under every design after one row of the trace."""

    name: str  # "peak" or "end"
    row: int
    time_ns: int
    designs: dict[str, dict[str, CacheFigures]]  # design -> cache -> figures


@dataclass(frozen=True, slots=True)
class ProcessFigures:
    """Objects that were allocated for one process and are live at the peak, by design and cache."""

    pid: int
    comm: str
    designs: dict[str, dict[str, int]]


@dataclass(frozen=True, slots=True)
class Bucket:
    """A stretch of time, and the most bytes of all caches in it, by design."""

    start_ns: int
    designs: dict[str, int]


@dataclass(slots=True)
class Comparison:
    """Everything that `rmaplab compare` prints.

    sizes: of the caches of mainline, and of those that designs have of their own
    sizes_from: "recording", or the name of the slab profile used; a design gives the sizes of its own caches
    vma_fields: bytes that each design adds to vm_area_struct, by field; not counted in the figures
    truth: comparison of the mainline replay with the kernel's own slab events, None if not recorded
    """

    meta: Meta
    rows: int
    profile: str
    sizes: dict[str, SlabSize]
    sizes_from: str
    moments: list[Moment]
    truth: TruthReport | None
    problems: dict[str, dict[str, int]]
    vma_fields: dict[str, dict[str, int]]
    locks: dict[str, dict[str, int]]
    processes: list[ProcessFigures] = field(default_factory=list)
    cost: dict[str, DesignCost] = field(default_factory=dict)  # empty unless asked for
    over_time: list[Bucket] = field(default_factory=list)

    @property
    def designs(self) -> list[str]:
        """Names of the designs, in the order asked for."""
        return list(self.moments[0].designs)


def slab_sizes(meta: Meta, profile: str | None = None) -> tuple[dict[str, SlabSize], str]:
    """Sizes of the caches: as recorded, else of the slab profile (the first one if None)."""
    fallback_name = profile or next(iter(SLAB_PROFILES))
    fallback = SLAB_PROFILES[fallback_name]
    if profile is None and set(meta.slabs) >= set(CACHE_NAMES):
        recorded = {
            name: SlabSize(
                meta.slabs[name]["object_size"], meta.slabs[name]["slot_size"], fallback[name].pages_per_slab
            )
            for name in CACHE_NAMES
        }
        return recorded, "recording"
    return dict(fallback), fallback_name


def grown_slot(comparison: Comparison, design: str) -> int:
    """Slot size in bytes of a vm_area_struct with the fields that `design` adds, where none are reserved: the cache has
    SLAB_HWCACHE_ALIGN."""
    size = comparison.sizes["vm_area_struct"].object_size + sum(comparison.vma_fields[design].values())
    return -(-size // CACHE_LINE) * CACHE_LINE


def _figures(counts: Counts, sizes: dict[str, SlabSize], page_size: int) -> dict[str, CacheFigures]:
    return {
        name: CacheFigures(objects, objects * size.slot_size, slab_pages(objects, size, page_size))
        for (name, size), objects in zip(sizes.items(), counts, strict=True)
    }


def compare(
    trace: Trace,
    designs: Sequence[str],
    profile: KernelProfile,
    *,
    slab_profile: str | None = None,
    by_process: bool = False,
    buckets: int = 0,
    cost: bool = False,
) -> Comparison:
    """Replay `trace` under each of `designs`, side by side in processes.

    buckets: number of stretches of time for `over_time`, 0 for none
    cost: measure the cost of walks, forks and first faults, too
    """
    meta = trace.meta
    names = list(dict.fromkeys([BASE, *designs]))
    jobs = [partial(replay_design, trace, name, profile, with_truth=name == BASE and meta.truth) for name in names]
    runs: dict[str, DesignRun] = dict(zip(names, in_processes(jobs), strict=True))
    sizes, sizes_from = slab_sizes(meta, slab_profile)
    design_sizes = {name: sizes | run.caches for name, run in runs.items()}
    slots = {name: [size.slot_size for size in of_design.values()] for name, of_design in design_sizes.items()}
    peak = runs[BASE].series.peak(slots[BASE])
    times = trace.columns["time"]
    moments = [
        Moment(
            name,
            row,
            times[row] if times else 0,
            {
                design: _figures(run.series.at(row), design_sizes[design], meta.page_size)
                for design, run in runs.items()
            },
        )
        for name, row in (("peak", peak), ("end", max(len(times) - 1, 0)))
    ]
    result = Comparison(
        meta=meta,
        rows=len(times),
        profile=profile.name,
        sizes={name: size for of_design in design_sizes.values() for name, size in of_design.items()},
        sizes_from=sizes_from,
        moments=moments,
        truth=runs[BASE].truth,
        problems={name: run.problems for name, run in runs.items() if run.problems},
        vma_fields={name: run.vma_fields for name, run in runs.items() if run.vma_fields},
        locks={name: run.locks for name, run in runs.items()},
    )
    if by_process and times:
        result.processes = _by_process(trace, {name: list(design_sizes[name]) for name in names}, profile, peak)
    if cost and times:
        jobs_of_cost = [partial(measure_cost, trace, name, profile, peak) for name in names]
        result.cost = dict(zip(names, in_processes(jobs_of_cost), strict=True))
    if buckets and times:
        result.over_time = _over_time(trace, runs, slots, buckets)
    return result


def _by_process(trace: Trace, caches: dict[str, list[str]], profile: KernelProfile, peak: int) -> list[ProcessFigures]:
    """caches: names of the caches of each design"""
    per_design = in_processes([partial(replay_by_process, trace, name, profile, peak) for name in caches])
    comms = {p["pid"]: p["comm"] for p in trace.meta.processes}
    pids = sorted(set().union(*per_design), key=lambda pid: (-sum(per_design[0].get(pid, ())), pid))
    return [
        ProcessFigures(
            pid,
            comms.get(pid, "?"),
            {
                design: dict(zip(names, counts.get(pid, (0,) * len(names)), strict=True))
                for (design, names), counts in zip(caches.items(), per_design, strict=True)
            },
        )
        for pid in pids
    ]


def _over_time(trace: Trace, runs: dict[str, DesignRun], slots: dict[str, list[int]], buckets: int) -> list[Bucket]:
    times = trace.columns["time"]
    first, last = times[0], max(times)
    width = max(1, -(-(last - first + 1) // buckets))
    # rows are in commit order, which is almost that of time: a stretch ends at the first row beyond it
    edges = [0]
    for row, time in enumerate(times):
        while time - first >= len(edges) * width:
            edges.append(row)
    edges.append(len(times))
    maxima = {name: run.series.maxima(edges) for name, run in runs.items()}
    return [
        Bucket(
            first + i * width,
            {name: sum(map(mul, counts[i], slots[name])) for name, counts in maxima.items()},
        )
        for i in range(len(edges) - 1)
    ]
