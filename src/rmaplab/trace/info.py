# SPDX-License-Identifier: GPL-2.0-only
"""What a trace is, before anything is replayed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from rmaplab.trace.schema import OPS, Trace

__all__ = ["InfoReport", "info"]


@dataclass(frozen=True)
class InfoReport:
    """The facts of one trace. Unknown text is "", an unknown number 0."""

    source: str
    created: str
    version: int
    command: tuple[str, ...]
    kernel: str
    machine: str
    cpus: int
    page_size: int
    """Bytes."""
    mode: str
    truth: bool
    locks: bool
    teardown: str
    synthetic: bool
    interrupted: bool
    duration_ns: int
    rows: int
    calls: int
    slab_events: int
    """Events of the kernel's slab caches that belong to a call."""
    files: int
    processes: tuple[tuple[int, str, int], ...]
    """(pid, name, parent)."""
    threads: int
    ops: dict[str, int]
    """Operation -> rows, in the order of the format's description."""
    events: dict[str, int]
    """Kind -> raw events, most frequent first."""
    slabs: dict[str, tuple[int, int]]
    """Cache -> (object size, slot size) in bytes."""
    lost: int
    duplicates: int
    deferred: tuple[str, ...]
    ignored: dict[str, int]
    """Reason -> raw events left out, most frequent first."""


def info(trace: Trace) -> InfoReport:
    """Gather the facts of `trace`."""
    meta, columns = trace.meta, trace.columns
    counts = Counter(columns["op"])
    return InfoReport(
        source=meta.source,
        created=meta.created,
        version=meta.version,
        command=tuple(meta.command),
        kernel=meta.kernel,
        machine=meta.machine,
        cpus=meta.cpus,
        page_size=meta.page_size,
        mode=meta.mode,
        truth=meta.truth,
        locks=meta.locks,
        teardown=meta.teardown,
        synthetic=meta.synthetic,
        interrupted=meta.interrupted,
        duration_ns=meta.duration_ns,
        rows=len(trace),
        calls=len(set(columns["call"])),
        slab_events=sum(len(words) for words in columns["truth"] if words),
        files=len(meta.files),
        processes=tuple(
            (process.get("pid", 0), process.get("comm", ""), process.get("parent", 0)) for process in meta.processes
        ),
        threads=len(set(columns["tid"])),
        ops={op: counts[op] for op in OPS if counts[op]},
        events=_by_count(meta.events),
        slabs={cache: (sizes.get("object_size", 0), sizes.get("slot_size", 0)) for cache, sizes in meta.slabs.items()},
        lost=meta.lost,
        duplicates=meta.duplicates,
        deferred=tuple(meta.deferred),
        ignored=_by_count(meta.ignored),
    )


def _by_count(counts: dict[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
