# SPDX-License-Identifier: GPL-2.0-only
"""The report of `rmaplab compare`: table, cover letter, by process, over time, JSON."""

from typing import Any

from rmaplab.mm.kernel import CACHE_NAMES
from rmaplab.replay.compare import (
    BASE,
    Bucket,
    CacheFigures,
    Comparison,
    Moment,
    ProcessFigures,
    grown_slot,
)
from rmaplab.report.cost import cost_json, cost_lines
from rmaplab.report.text import WIDTH, change, kib, machine_line, seconds, wrap
from rmaplab.report.truth import truth_box, truth_json

__all__ = ["comparison_json", "comparison_text", "cover_letter"]

_ALL = "all three"


def _own_caches(comparison: Comparison) -> list[str]:
    """Caches that only some designs have"""
    return [name for name in comparison.sizes if name not in CACHE_NAMES]


def _with_total(caches: dict[str, CacheFigures]) -> dict[str, CacheFigures]:
    values = list(caches.values())
    total = CacheFigures(sum(v.objects for v in values), sum(v.bytes for v in values), sum(v.pages for v in values))
    return {**caches, _ALL: total}


def comparison_text(comparison: Comparison, source: str) -> str:
    """Tables of both moments, the truth box, and what else was asked for."""
    meta = comparison.meta
    lines = []
    if meta.synthetic:
        lines.append("SYNTHETIC workload: generated, not recorded")
    processes = len(meta.processes)
    title = f"{source}: {processes} processes, {seconds(meta.duration_ns)}, {comparison.rows} operations"
    lines += wrap(title, "  ")
    lines += wrap(machine_line(meta), "  ")
    for moment in comparison.moments:
        lines += ["", *_moment_table(moment, _own_caches(comparison))]
    lines += ["", *_sizes_line(comparison)]
    lines += ["", *truth_box(meta, comparison.truth)]
    for design, problems in comparison.problems.items():
        for reason, count in sorted(problems.items()):
            lines += wrap(f"  note: {design}: {count} rows not applied: {reason}", "    ")
    if comparison.cost:
        lines += ["", *cost_lines(comparison.cost)]
    if comparison.processes:
        lines += ["", *_process_table(comparison.processes)]
    if comparison.over_time:
        lines += ["", *_plot(comparison.over_time, comparison.moments[0])]
    return "\n".join(line.rstrip() for line in lines)


def _moment_table(moment: Moment, own: list[str]) -> list[str]:
    when = f"at the {moment.name}, {seconds(moment.time_ns)}"
    lines = [f"{when:<39}{'objects':>9}{'KiB':>11}{'pages':>7}{'change':>9}"]
    designs = {name: _with_total(caches) for name, caches in moment.designs.items()}
    base = designs[BASE]
    for cache in (*CACHE_NAMES, *own, _ALL):
        label = _label(cache, own)
        for design, caches in designs.items():
            figures = caches.get(cache)
            if figures is None:
                continue
            delta = change(base[cache].bytes, figures.bytes) if design != BASE and cache in base else ""
            lines.append(
                f"{label:<16}{design:<23}{figures.objects:>9}{kib(figures.bytes):>11}{figures.pages:>7}{delta:>9}"
            )
            label = ""
    return lines


def _label(cache: str, own: list[str]) -> str:
    return "all caches" if cache == _ALL and own else cache


def _sizes(comparison: Comparison) -> str:
    return ", ".join(f"{name} {size.slot_size}" for name, size in comparison.sizes.items())


def _sizes_line(comparison: Comparison) -> list[str]:
    sizes = _sizes(comparison)
    lines = wrap(f"slot sizes in bytes ({comparison.sizes_from}): {sizes}; slab pages densely packed", "  ")
    return lines + _field_lines(comparison)


def _field_lines(comparison: Comparison) -> list[str]:
    """What each design adds to vm_area_struct, or takes out of it"""
    lines: list[str] = []
    for design, fields in comparison.vma_fields.items():
        if sum(fields.values()) <= 0:
            text = f"{design} takes {-sum(fields.values())} bytes out of vm_area_struct ({', '.join(fields)}):"
            lines += wrap(f"{text} not in the figures", "  ")
            continue
        text = f"{design} adds {sum(fields.values())} bytes to vm_area_struct ({', '.join(fields)}), taken"
        lines += wrap(f"{text} to fit into reserved fields. {_if_not_reserved(comparison, design)}", "  ")
    return lines


def _if_not_reserved(comparison: Comparison, design: str) -> str:
    """What the fields would cost in a kernel whose vm_area_struct has no room for them"""
    size, grown = comparison.sizes["vm_area_struct"], grown_slot(comparison, design)
    caches = _with_total(comparison.moments[0].designs[design])
    more = caches["vm_area_struct"].objects * (grown - size.slot_size)
    total = caches[_ALL].bytes + more
    base = _with_total(comparison.moments[0].designs[BASE])[_ALL].bytes
    return (
        f"Without reserved fields the slot grows from {size.slot_size} to {grown} bytes:"
        f" {_label(_ALL, _own_caches(comparison))} {kib(total)} KiB at the peak ({change(base, total)})"
    )


def _process_table(processes: list[ProcessFigures]) -> list[str]:
    designs = list(processes[0].designs)
    own = any(set(caches) - set(CACHE_NAMES) for caches in processes[0].designs.values())
    # a column for the caches that only some designs have takes its width from the two first
    name, first = (16, 11) if own else (20, 15)
    vma = "VMA" if own else "vm_area_struct"
    lines = [
        "by process at the peak: objects allocated for it",
        f"{'pid':>8} {'comm':<16}{'design':<{name}}{vma:>{first}}{'anon_vma':>9}{'AVC':>6}" + f"{'others':>8}" * own,
    ]
    for process in processes:
        for i, design in enumerate(designs):
            counts = process.designs[design]
            head = f"{process.pid:>8} {process.comm[:15]:<16}" if not i else " " * 25
            lines.append(
                f"{head}{design[: name - 1]:<{name}}{counts['vm_area_struct']:>{first}}{counts['anon_vma']:>9}"
                f"{counts['anon_vma_chain']:>6}"
                + f"{sum(n for cache, n in counts.items() if cache not in CACHE_NAMES):>8}"
                * own
            )
    return lines


def _plot(buckets: list[Bucket], peak: Moment) -> list[str]:
    """One line for each stretch of time, one column for each share of the peak; each design has its own mark."""
    designs = list(buckets[0].designs)
    marks = dict(zip(designs, "#o+x*@%&=~", strict=False))
    top = max(max(b.designs.values()) for b in buckets) or 1
    columns = WIDTH - 22
    legend = ", ".join(f"{mark} {design}" for design, mark in marks.items())
    lines = wrap(f"all caches over time, most KiB in each stretch; full width = {kib(top)} KiB", "  ")
    lines += wrap(f"{legend}; peak of {BASE} at {seconds(peak.time_ns)}", "  ")
    for bucket in buckets:
        row = [" "] * (columns + 1)
        for design in reversed(designs):
            row[round(bucket.designs[design] / top * columns)] = marks[design]
        line = f"{seconds(bucket.start_ns):>10} |{''.join(row).rstrip()}"
        lines.append(line)
    return lines


def cover_letter(comparison: Comparison, command: str) -> str:
    """The table of the series' cover letter: active slab KiB, base -> design (change)."""
    meta = comparison.meta
    others = [name for name in comparison.designs if name != BASE]
    lines = []
    if meta.synthetic:
        lines.append("SYNTHETIC workload: generated, not recorded.")
    workload = " ".join(meta.command) or meta.source or "unknown command"
    lines += wrap(f"Machine: {machine_line(meta)}", "  ")
    lines += wrap(f"Workload: {workload} ({len(meta.processes)} processes, {seconds(meta.duration_ns)})", "  ")
    lines += wrap(
        f"Slot sizes (bytes, {comparison.sizes_from}): " + _sizes(comparison),
        "  ",
    )
    for moment in comparison.moments:
        base = _with_total(moment.designs[BASE])
        for design in others:
            values = _with_total(moment.designs[design])
            lines += ["", f"At the {moment.name} ({seconds(moment.time_ns)}), active slab KiB, {BASE} -> {design}", ""]
            own = [cache for cache in moment.designs[design] if cache not in CACHE_NAMES]
            for cache in (*CACHE_NAMES, *own, _ALL):
                before, after = base.get(cache, CacheFigures(0, 0, 0)), values[cache]
                delta = f"({change(before.bytes, after.bytes)})" if before.bytes else ""
                lines.append(f"  {_label(cache, own):<16}{kib(before.bytes):>12} -> {kib(after.bytes):>10} {delta}")
    lines += ["", *_field_lines(comparison)]
    lines += truth_box(meta, comparison.truth)
    lines += ["", "Reproduce with:", f"  {command}"]
    return "\n".join(line.rstrip() for line in lines)


def comparison_json(comparison: Comparison) -> dict[str, Any]:
    """The report as JSON (docs/json.md)."""
    meta = comparison.meta
    return {
        "synthetic": meta.synthetic,
        "machine": meta.machine,
        "kernel": meta.kernel,
        "kernel_rules": comparison.profile,
        "page_size": meta.page_size,
        "command": meta.command,
        "processes": len(meta.processes),
        "duration_ns": meta.duration_ns,
        "operations": comparison.rows,
        "lost": meta.lost,
        "slab_sizes_from": comparison.sizes_from,
        "slab_sizes": {
            name: {"object_size": s.object_size, "slot_size": s.slot_size, "pages_per_slab": s.pages_per_slab}
            for name, s in comparison.sizes.items()
        },
        "designs": comparison.designs,
        "vma_fields": comparison.vma_fields,
        "locks": comparison.locks,
        "moments": {
            moment.name: {
                "row": moment.row,
                "time_ns": moment.time_ns,
                "designs": {
                    design: {
                        cache: {"objects": f.objects, "bytes": f.bytes, "pages": f.pages} for cache, f in caches.items()
                    }
                    for design, caches in moment.designs.items()
                },
            }
            for moment in comparison.moments
        },
        "problems": comparison.problems,
        "truth": truth_json(comparison.truth) if comparison.truth is not None else None,
        "cost": cost_json(comparison.cost) if comparison.cost else None,
        "by_process": [{"pid": p.pid, "comm": p.comm, "designs": p.designs} for p in comparison.processes],
        "over_time": [{"start_ns": b.start_ns, "bytes": b.designs} for b in comparison.over_time],
    }
