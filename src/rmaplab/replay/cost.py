# SPDX-License-Identifier: GPL-2.0-only
"""What a design costs besides memory: VMAs visited per walk, locks, objects touched per fork and per first fault."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rmaplab.designs.registry import make_design
from rmaplab.mm.hooks import Hooks
from rmaplab.mm.kernel import Kernel
from rmaplab.mm.locks import LOCK_KINDS, CountingLocks
from rmaplab.mm.profile import KernelProfile
from rmaplab.mm.rmap import page_vma_mapped_walk, visits
from rmaplab.replay.replayer import Replayer
from rmaplab.replay.run import no_gc
from rmaplab.trace.schema import Trace

__all__ = ["DesignCost", "OperationCost", "WalkCost", "measure_cost", "measure_walks"]


@dataclass(slots=True)
class WalkCost:
    """One walk (rmap_walk) for each mapped folio.

    visits: VMAs visited, of all walks
    p99, most: visits of one walk: 99th percentile (nearest rank) and maximum
    fruitless: visits in which no page-table entry maps the folio
    locks: acquisitions by kind, without the page-table locks that a visit takes
    lookups: searches in the VMA tree of an mm; None where the design does not tell
    """

    walks: int = 0
    visits: int = 0
    p99: int = 0
    most: int = 0
    fruitless: int = 0
    locks: dict[str, int] = field(default_factory=dict)
    lookups: int | None = None


@dataclass(slots=True)
class OperationCost:
    """All operations of one kind.

    allocated: objects by slab cache
    locks: acquisitions by kind
    rmap_objects: different objects whose rmap lock was taken, summed over the operations
    """

    count: int = 0
    allocated: Counter[str] = field(default_factory=Counter)
    locks: Counter[str] = field(default_factory=Counter)
    rmap_objects: int = 0


@dataclass(slots=True)
class DesignCost:
    """One design, from the start of a trace to a row.

    locks: acquisitions by kind
    fork: dup_mm; first_fault: hook 1, for a VMA that was unfaulted
    vma_bytes: bytes that the design adds to vm_area_struct
    """

    walk: WalkCost
    locks: dict[str, int]
    fork: OperationCost
    first_fault: OperationCost
    vma_bytes: int


class _TouchLocks(CountingLocks):
    """Counts, and remembers between two looks which objects' rmap locks were taken."""

    __slots__ = ("touched",)

    def __init__(self) -> None:
        super().__init__()
        self.touched: set[Any] | None = None

    def anon_vma_read(self, anon_vma: Any) -> Any:
        if self.touched is not None:
            self.touched.add(getattr(anon_vma, "root", anon_vma))
        return super().anon_vma_read(anon_vma)

    def anon_vma_write(self, anon_vma: Any) -> Any:
        if self.touched is not None:
            self.touched.add(getattr(anon_vma, "root", anon_vma))
        return super().anon_vma_write(anon_vma)


class _Meter:
    """Charges what happens in a call to an :class:`OperationCost`. Calls do not nest."""

    def __init__(self, kernel: Kernel, locks: _TouchLocks) -> None:
        self.kernel = kernel
        self.locks = locks

    def charge(self, cost: OperationCost, call: Callable[..., None], *args: Any) -> None:
        before = self.locks.counts()
        totals = [slab.total for slab in self.kernel.slabs]
        self.locks.touched = set()
        call(*args)
        cost.count += 1
        cost.rmap_objects += len(self.locks.touched)
        self.locks.touched = None
        for slab, total in zip(self.kernel.slabs, totals, strict=True):
            cost.allocated[slab.name] += slab.total - total
        for kind, count in self.locks.counts().items():
            cost.locks[kind] += count - before[kind]


def measure_cost(trace: Trace, design: str, profile: KernelProfile, until: int) -> DesignCost:
    """Replay `trace` under `design` up to and including row `until`, then walk for every folio that is mapped."""
    hooks = make_design(design)
    locks = _TouchLocks()
    kernel = Kernel(hooks, profile, locks, thp=trace.meta.thp or "madvise")
    meter = _Meter(kernel, locks)
    fork, first_fault = OperationCost(), OperationCost()
    _meter_first_faults(hooks, meter, first_fault)
    replayer = Replayer(kernel, trace)
    with no_gc():
        for row, op in enumerate(trace.columns["op"]):
            if row > until:
                break
            if op == "fork":
                meter.charge(fork, replayer.apply, row, op)
            else:
                replayer.apply(row, op)
        counts = locks.counts()
        walk = measure_walks(kernel)
    fields: dict[str, int] = getattr(hooks, "vma_fields", dict)()
    return DesignCost(walk, counts, fork, first_fault, sum(fields.values()))


def _meter_first_faults(hooks: Hooks, meter: _Meter, cost: OperationCost) -> None:
    prepare = hooks.anon_vma_prepare

    def metered(vma: Any) -> None:
        meter.charge(cost, prepare, vma)

    hooks.anon_vma_prepare = metered  # type: ignore[method-assign]


def measure_walks(kernel: Kernel) -> WalkCost:
    """One walk for every mapped folio of `kernel`. Changes nothing but the lock counts."""
    lookups: Callable[[Any], int] | None = getattr(kernel.hooks, "walk_lookups", None)
    cost = WalkCost(lookups=None if lookups is None else 0)
    lengths: Counter[int] = Counter()  # visits of a walk -> walks
    locks: Counter[str] = Counter()
    for folio in kernel.mem.folios():
        if not folio.mapcount:
            continue
        before = kernel.locks.counts()
        places = list(visits(kernel, folio))
        for kind, count in kernel.locks.counts().items():
            locks[kind] += count - before[kind]
        cost.walks += 1
        lengths[len(places)] += 1
        cost.fruitless += sum(next(page_vma_mapped_walk(folio, *place), None) is None for place in places)
        if lookups is not None and cost.lookups is not None:
            cost.lookups += lookups(folio)
    cost.visits = sum(length * walks for length, walks in lengths.items())
    cost.most = max(lengths, default=0)
    cost.p99 = _percentile(lengths, 99)
    cost.locks = {kind: locks[kind] for kind in LOCK_KINDS}
    return cost


def _percentile(lengths: Counter[int], percent: int) -> int:
    """The smallest value that at least `percent` of all do not exceed; 0 of nothing."""
    rest = -(-lengths.total() * percent // 100)
    for length in sorted(lengths):
        rest -= lengths[length]
        if rest <= 0:
            return length
    return 0
