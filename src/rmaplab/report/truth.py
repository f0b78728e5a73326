# SPDX-License-Identifier: GPL-2.0-only
"""The truth box below every comparison, and the report of `rmaplab truth`."""

from typing import Any

from rmaplab.replay.truth import TruthReport
from rmaplab.report.text import share, wrap
from rmaplab.trace.schema import Meta

__all__ = ["truth_box", "truth_json", "truth_text"]


def _notes(meta: Meta, report: TruthReport | None) -> list[str]:
    notes = []
    if meta.lost:
        notes.append(f"{meta.lost} records were lost: no exact verdict")
    if meta.interrupted:
        notes.append("the recording ends before the command did")
    if meta.teardown == "inferred":
        notes.append(
            "exits were not seen (per-task recording): teardown is inferred"
            + (f", {report.inferred} frees taken from the model" if report else "")
        )
    if not meta.locks:
        notes.append("no mmap_lock events: threads that share an mm are in time order")
    if meta.deferred:
        notes.append(f"freed by RCU, not compared by operation: {', '.join(meta.deferred)}")
    if meta.synthetic:
        notes.append("SYNTHETIC workload: generated, not recorded")
    if report is not None and any(report.predating.values()):
        objects = ", ".join(f"{count} {name}" for name, count in report.predating.items() if count)
        notes.append(f"older than the recording: {objects}")
    return notes


def truth_box(meta: Meta, report: TruthReport | None) -> list[str]:
    """What the comparison with the kernel says, in a few lines."""
    lines = []
    if report is None:
        lines.append("truth: the recording has no slab events of the kernel, so nothing was")
        lines.append("checked; record with --truth")
    else:
        lines += [
            f"truth: the {report.design} replay against the kernel's own slab events",
            _ratio("allocations and frees predicted exactly", report.events_exact, report.events),
            _ratio("operations exact", report.operations_exact, report.operations),
            _ratio("frees of the right object", report.frees - report.frees_wrong, report.frees),
            _ratio("live counts equal when nothing is in progress", report.quiescent_equal, report.quiescent_points),
            f"  lost records {report.lost}; verdict: {report.verdict}",
        ]
        worst = sorted(report.mismatches.items(), key=lambda item: -item[1].count)[:3]
        for name, mismatch in worst:
            lines += wrap(f"  mismatch: {mismatch.count} x {name}", "    ")
    for note in _notes(meta, report):
        lines += wrap(f"  note: {note}", "    ")
    return lines


def _ratio(what: str, part: int, whole: int) -> str:
    figures = f"{part}/{whole}"
    return f"  {what:<46}{figures:>17}  {share(part, whole) if whole else '-':>8}"


def truth_text(meta: Meta, report: TruthReport) -> str:
    """The report of `rmaplab truth`."""
    lines = truth_box(meta, report)[:6]
    lines.append(f"  rules of kernel {report.profile}; mmap ranges that differ: {report.ranges_wrong}")
    if report.problems:
        lines += ["", "rows that could not be applied"]
        lines += [f"  {count:>8}  {reason}" for reason, count in sorted(report.problems.items())]
    if report.mismatches:
        lines += ["", "mismatches, by class (+ allocation, - free; v vm_area_struct, a anon_vma,", "c anon_vma_chain)"]
    for name, mismatch in sorted(report.mismatches.items(), key=lambda item: (-item[1].count, item[0])):
        lines += wrap(f"  {mismatch.count:>6} {name}", " " * 9)
        for example in mismatch.examples:
            lines += wrap(f"         {example}", " " * 11)
    notes = _notes(meta, report)
    if notes:
        lines.append("")
        for note in notes:
            lines += wrap(f"note: {note}", "  ")
    return "\n".join(lines)


def truth_json(report: TruthReport) -> dict[str, Any]:
    """The report as JSON (docs/json.md)."""
    return {
        "design": report.design,
        "kernel_rules": report.profile,
        "verdict": report.verdict,
        "exact": report.exact,
        "operations": report.operations,
        "operations_exact": report.operations_exact,
        "events": report.events,
        "events_exact": report.events_exact,
        "frees": report.frees,
        "frees_wrong": report.frees_wrong,
        "quiescent_points": report.quiescent_points,
        "quiescent_equal": report.quiescent_equal,
        "ranges_wrong": report.ranges_wrong,
        "inferred": report.inferred,
        "predating": report.predating,
        "lost": report.lost,
        "problems": report.problems,
        "mismatches": {
            name: {"count": mismatch.count, "examples": mismatch.examples}
            for name, mismatch in sorted(report.mismatches.items())
        },
    }
