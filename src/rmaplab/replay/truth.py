# SPDX-License-Identifier: GPL-2.0-only
"""Ground truth: a replay held against the kernel's own allocations and frees, operation by operation."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

from rmaplab.mm.hooks import Hooks
from rmaplab.mm.kernel import CACHE_NAMES, Kernel
from rmaplab.mm.profile import KernelProfile
from rmaplab.replay.replayer import Replayer
from rmaplab.replay.series import Series
from rmaplab.trace.schema import Trace

__all__ = ["EXAMPLES", "Mismatch", "TruthReport", "check_truth"]

EXAMPLES = 5  # kept per class of mismatch

_LETTERS = "vac"  # vm_area_struct, anon_vma, anon_vma_chain in the short form of examples


@dataclass(slots=True)
class Mismatch:
    """One class of mismatch: operations of one kind that differ from the kernel in the same way."""

    count: int = 0
    examples: list[str] = field(default_factory=list)


@dataclass(slots=True)
class TruthReport:
    """What the comparison found. All figures are counts.

    operations: system calls, faults and teardowns in which the kernel or the model allocated or freed
    operations_exact: those with the same sequence of (alloc or free, cache), and each free of the same object
    events, events_exact: the kernel's slab events, and those inside exact operations
    frees, frees_wrong: frees of the kernel, and those that name another object than the model's
    quiescent_points, quiescent_equal: instants with nothing in progress, and those with equal live counts
    ranges_wrong: mmap calls whose VMA, after merging, is not the one that the MMAP2 record shows
    inferred: frees in teardowns that the recording does not show (per-task mode), taken from the model
    predating: objects by cache that existed before the recording (the stack VMA of its first program)
    """

    design: str
    profile: str
    has_truth: bool
    lost: int
    operations: int = 0
    operations_exact: int = 0
    events: int = 0
    events_exact: int = 0
    frees: int = 0
    frees_wrong: int = 0
    quiescent_points: int = 0
    quiescent_equal: int = 0
    ranges_wrong: int = 0
    inferred: int = 0
    predating: dict[str, int] = field(default_factory=lambda: dict.fromkeys(CACHE_NAMES, 0))
    problems: dict[str, int] = field(default_factory=dict)
    mismatches: dict[str, Mismatch] = field(default_factory=dict)

    @property
    def exact(self) -> bool:
        """True if nothing differs and the recording allows a verdict."""
        return (
            self.has_truth
            and not self.lost
            and self.operations > 0
            and not self.mismatches
            and not self.ranges_wrong
            and not self.problems
            and self.quiescent_equal == self.quiescent_points
        )

    @property
    def verdict(self) -> str:
        """`exact`, `differs`, or why there is none."""
        if not self.has_truth:
            return "no verdict: recorded without truth"
        if self.lost:
            return f"no verdict: {self.lost} lost records"
        if not self.operations:
            return "no verdict: nothing to compare"
        return "exact" if self.exact else "differs"


class _Comparer:
    def __init__(self, report: TruthReport, trace: Trace, log: list[tuple[int, int, Any]]) -> None:
        self.report = report
        self.trace = trace
        self.log = log
        self.pending: dict[int, list[tuple[int, int, Any]]] = defaultdict(list)  # call -> model's events
        self.first_op: dict[int, str] = {}
        self.kernel_live = [0, 0, 0]
        self.bound: dict[Any, int] = {}  # model object -> kernel object
        self.objects: dict[int, Any] = {}  # and back
        self.deferred = {CACHE_NAMES.index(name) for name in trace.meta.deferred}

    def after_row(self, row: int, op: str, call: int) -> None:
        first_op = self.first_op.setdefault(call, op)
        if self.log:
            if op == "exit_mmap" and self.trace.columns["flags"][row] & 1:
                self.count_inferred()
            elif op == first_op == "exec":
                # the recording began in the middle of this execve: its stack VMA was there already
                self.predate()
            else:
                self.pending[call].extend(self.log)
            self.log.clear()
        truth = self.trace.columns["truth"][row]
        if truth is not None:
            label = self.first_op.pop(call)
            model = self.pending.pop(call, [])
            if self.deferred:  # an RCU callback frees them, in no operation
                model = [entry for entry in model if entry[0] or entry[1] not in self.deferred]
                truth = [event for event in truth if event & 1 or event >> 1 & 3 not in self.deferred]
            self.compare(label, model, truth, row)

    def live_equal(self, kernel: Kernel) -> bool:
        """Are as many objects live in the model as in the kernel?"""
        return all(
            slab.live == live + predating
            for slab, live, predating in zip(
                kernel.slabs, self.kernel_live, self.report.predating.values(), strict=False
            )
            if slab.number not in self.deferred
        )

    def count_inferred(self) -> None:
        """A teardown that perf could not see: the kernel is taken to have freed what the model frees."""
        for alloc, cache, obj in self.log:
            self.kernel_live[cache] += 1 if alloc else -1
            self.report.inferred += 1
            number = self.bound.pop(obj, None)
            if number is not None:
                self.objects.pop(number, None)

    def predate(self) -> None:
        for alloc, cache, _ in self.log:
            self.report.predating[CACHE_NAMES[cache]] += 1 if alloc else -1

    def compare(self, label: str, model: list[tuple[int, int, Any]], truth: list[int], row: int) -> None:
        if not model and not truth:
            return
        report = self.report
        report.operations += 1
        report.events += len(truth)
        for event in truth:
            self.kernel_live[event >> 1 & 3] += 1 if event & 1 else -1
        same = len(model) == len(truth) and all(
            alloc == event & 1 and cache == event >> 1 & 3
            for (alloc, cache, _), event in zip(model, truth, strict=True)
        )
        wrong = self.bind(model, truth, same)
        report.frees_wrong += wrong
        if same and not wrong:
            report.operations_exact += 1
            report.events_exact += len(truth)
            return
        if same:
            kind = "another object freed"
        else:
            kernel_set = Counter((e & 1, e >> 1 & 3) for e in truth)
            model_set = Counter((alloc, cache) for alloc, cache, _ in model)
            kind = "order" if kernel_set == model_set else _difference(kernel_set, model_set)
        entry = report.mismatches.setdefault(f"{label}: {kind}", Mismatch())
        entry.count += 1
        if len(entry.examples) < EXAMPLES:
            columns = self.trace.columns
            entry.examples.append(
                f"row {row}, {columns['time'][row] / 1e9:.6f} s, tid {columns['tid'][row]}: "
                f"kernel {_short([(e & 1, e >> 1 & 3) for e in truth])}, "
                f"model {_short([(alloc, cache) for alloc, cache, _ in model])}"
            )

    def bind(self, model: list[tuple[int, int, Any]], truth: list[int], same: bool) -> int:
        """Tie the model's objects to the kernel's; the number of frees that name another object.

        Whichever of an object's two events is seen first ties it, the other is held against that: an operation
        that frees may be compared before the one that allocated, where two tasks ran at once.
        """
        if same:
            pairs = list(zip(model, truth, strict=True))
        else:
            queues: dict[tuple[int, int], list[Any]] = defaultdict(list)
            for entry in model:
                queues[entry[0], entry[1]].append(entry)
            pairs = []
            for event in truth:
                queue = queues.get((event & 1, event >> 1 & 3))
                if queue:
                    pairs.append((queue.pop(0), event))
        wrong = 0
        self.report.frees += sum(1 for event in truth if not event & 1)
        for (_, _, obj), event in pairs:
            number = event >> 3
            known = self.bound.get(obj)
            if known is None and number not in self.objects:
                self.bound[obj] = number
                self.objects[number] = obj
            else:
                # what has had both its events is forgotten; an object that the kernel still has stays in `objects`
                wrong += known != number
                self.bound.pop(obj, None)
                gone = known if event & 1 and known is not None else number
                self.objects.pop(gone, None)
        return wrong


def _short(events: list[tuple[int, int]]) -> str:
    """`+v +c +a -v`: allocations and frees by cache letter."""
    text = " ".join(("-", "+")[alloc] + _LETTERS[cache] for alloc, cache in events[:24])
    return (text or "nothing") + (" ..." if len(events) > 24 else "")


def _difference(kernel: Counter[tuple[int, int]], model: Counter[tuple[int, int]]) -> str:
    parts = []
    for who, extra in (("kernel", kernel - model), ("model", model - kernel)):
        if extra:
            what = " ".join(
                f"{count if count > 1 else ''}{'-+'[alloc]}{CACHE_NAMES[cache]}"
                for (alloc, cache), count in sorted(extra.items())
            )
            parts.append(f"only {who} {what}")
    return ", ".join(parts)


def check_truth(
    trace: Trace, hooks: Hooks, profile: KernelProfile, series: Series | None = None
) -> tuple[TruthReport, Kernel]:
    """Replay `trace` under `hooks` and compare every operation with the kernel's own slab events.

    Returns the report and the kernel at the end. `series` receives the live objects.
    """
    meta = trace.meta
    kernel = Kernel(hooks, profile, thp=meta.thp or "madvise")
    report = TruthReport(hooks.name, profile.name, meta.truth, meta.lost)
    replayer = Replayer(kernel, trace)
    comparer = _Comparer(report, trace, kernel.log_slabs(len(CACHE_NAMES)))
    vmas, anon_vmas, avcs, *_ = kernel.slabs
    before = None
    columns = trace.columns
    for row, (op, call, quiescent) in enumerate(zip(columns["op"], columns["call"], columns["quiescent"], strict=True)):
        replayer.apply(row, op)
        comparer.after_row(row, op, call)
        if series is not None:
            now = vmas.live, anon_vmas.live, avcs.live
            if now != before:
                series.add(row, *now)
                before = now
        if quiescent:
            report.quiescent_points += 1
            report.quiescent_equal += comparer.live_equal(kernel)
    report.ranges_wrong = replayer.range_differs
    report.problems = dict(replayer.problems)
    return report, kernel
