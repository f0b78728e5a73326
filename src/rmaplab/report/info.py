# SPDX-License-Identifier: GPL-2.0-only
"""`rmaplab info` as plain text of at most 75 columns."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from typing import Final

from rmaplab.trace.info import InfoReport

__all__ = ["format_info"]

_WIDTH: Final = 75
_LABEL: Final = 12
_PROCESSES: Final = 12
"""Processes listed before the rest is summed up."""


def format_info(report: InfoReport) -> str:
    """The facts of a trace as text, without a newline at the end."""
    lines: list[str] = []
    what = "synthetic workload" if report.synthetic else f"recording by {report.mode}"
    if report.mode == "unknown" and not report.synthetic:
        what = "recording"
    lines += _field("trace", f"{what}, format {report.version}, from {report.source or 'unknown source'}")
    lines += _field("created", report.created)
    lines += _field("command", shlex.join(report.command))
    lines += _field("kernel", " ".join(word for word in (report.kernel, report.machine) if word))
    machine = [f"{report.cpus} CPUs"] if report.cpus else []
    lines += _field("machine", ", ".join([*machine, f"pages of {report.page_size} bytes"]))
    lines += _field("duration", f"{report.duration_ns / 1e9:.3f} s")
    lines += _field(
        "contents",
        f"{report.rows} rows, {report.calls} calls, {len(report.processes)} processes, "
        f"{report.threads} threads, {report.files} files",
    )
    lines += _field(
        "truth",
        f"{report.slab_events} slab events of the kernel" if report.truth else "not recorded (--no-truth)",
    )
    lines += _field("order", "by mmap lock" if report.locks else "by time: racing threads are not exact")
    lines += _field("teardown", report.teardown)
    lines += _field("lost", f"{report.lost} records" + (": no exact verdict possible" if report.lost else ""))
    if report.interrupted:
        lines += _field("note", "interrupted: the recording ends in the middle of the run")
    if report.deferred:
        lines += _field("note", f"frees of {', '.join(report.deferred)} come from RCU callbacks, not from calls")
    if report.duplicates:
        lines += _field("duplicates", f"{report.duplicates} slab records dropped")
    lines += _table("rows by operation", report.ops.items())
    lines += _processes(report)
    if report.slabs:
        lines += ["", f"{'slab cache':<40}{'object':>12}{'slot':>12}  bytes"]
        for cache, (size, slot) in report.slabs.items():
            lines.append(f"  {cache:<38}{size:>12}{slot:>12}")
    lines += _table("raw events", report.events.items())
    lines += _table("left out", report.ignored.items())
    return "\n".join(lines)


def _field(label: str, text: str) -> list[str]:
    """A labelled line, folded at blanks."""
    if not text:
        return []
    lines: list[str] = []
    room = _WIDTH - _LABEL
    while len(text) > room:
        cut = text.rfind(" ", 1, room + 1)
        cut = cut if cut > 0 else room
        lines.append(text[:cut])
        text = text[cut:].lstrip()
    lines.append(text)
    return [f"{label if not index else '':<{_LABEL}}{line}" for index, line in enumerate(lines)]


def _table(title: str, items: Iterable[tuple[str, int]]) -> list[str]:
    rows = list(items)
    if not rows:
        return []
    lines = ["", title]
    for name, count in rows:
        shown = name if len(name) <= 60 else name[:57] + "..."
        lines.append(f"  {shown:<60}{count:>12}")
    return lines


def _processes(report: InfoReport) -> list[str]:
    if not report.processes:
        return []
    lines = ["", f"{'process':<12}{'parent':>10}  name"]
    for pid, name, parent in report.processes[:_PROCESSES]:
        lines.append(f"  {pid:<10}{parent or '-':>10}  {name[:48]}")
    rest = len(report.processes) - _PROCESSES
    if rest > 0:
        lines.append(f"  and {rest} more")
    return lines
