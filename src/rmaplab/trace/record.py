# SPDX-License-Identifier: GPL-2.0-only
"""Records one run of a command with perf, and imports it."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from rmaplab.trace.cgroup import Cgroup, CgroupUnavailable
from rmaplab.trace.command import HeldCommand
from rmaplab.trace.errors import RecordError, TraceError
from rmaplab.trace.perf_data import script_output
from rmaplab.trace.perf_events import choose_events, find_tracefs
from rmaplab.trace.perf_tool import DISK_FULL, PerfRecord, check_permission, check_version
from rmaplab.trace.schema import Meta, Trace
from rmaplab.trace.source import Progress, import_text
from rmaplab.trace.store import check_target, write_trace

__all__ = ["MODES", "Recording", "record"]

MODES: Final = ("auto", "cgroup", "task")
"""How perf is attached: CPU-wide to a cgroup of our own, to the task and its children, or as it can be."""


_ROOM: Final = 1 << 20
"""Bytes free on a disk that is not full."""


@dataclass
class Recording:
    """What `record()` made."""

    trace: Trace
    output: Path
    """Where the trace is."""
    status: int
    """Exit status of the command, 128 + n if signal n ended it."""
    perf_data: Path | None = None
    """Where perf.data is, if it was to be kept."""
    notes: list[str] = field(default_factory=list)
    """Limits of this recording, one line each."""


def record(
    command: Sequence[str],
    output: str | os.PathLike[str],
    *,
    truth: bool = True,
    full_paths: bool = False,
    mode: str = "auto",
    read_faults: bool = False,
    keep_perf_data: bool = False,
    note: Callable[[str], None] | None = None,
    progress: Progress | None = None,
) -> Recording:
    """Run `command`, record it and its children, and write the trace to `output`.

    `truth` also records the kernel's own slab events, `read_faults` the faults that read (they are recorded in any case
    where huge pages are always on). `note` is told of each limit as it is found,
    `progress` how many lines are imported. The command has the caller's terminal and environment.

    :raises RecordError: it cannot be recorded; the command has not run, or nothing of it was kept
    :raises TraceError: the recording cannot be read back or stored
    """
    if mode not in MODES:
        raise ValueError(f"mode {mode!r} is none of {', '.join(MODES)}")
    if not command:
        raise RecordError("no command to record; give one after --")
    output = Path(output)
    # before the run, not after it
    check_target(Path(os.path.realpath(output)))
    notes: list[str] = []

    def tell(line: str) -> None:
        notes.append(line)
        if note is not None:
            note(line)

    if os.sep not in command[0] and shutil.which(command[0]) is None:
        raise RecordError(f"{command[0]}: command not found")
    perf = check_version()
    check_permission()
    events = choose_events(find_tracefs(), truth, tell, read_faults=read_faults)
    meta = Meta(
        command=list(command),
        kernel=platform.release(),
        machine=platform.machine(),
        cpus=os.cpu_count() or 0,
        thp=_transparent_hugepages(),
        page_size=os.sysconf("SC_PAGESIZE"),
        source=f"perf {perf}",
    )
    # next to the output, where there is room for it, and never in a /tmp that is memory
    with tempfile.TemporaryDirectory(prefix=".rmaplab.", dir=output.parent) as scratch:
        data = Path(scratch) / "perf.data"
        status = _run(command, data, events, mode, meta, tell)
        trace = _import(data, meta, full_paths, progress)
        trace.meta.truth = truth
        _report_losses(trace, tell)
        write_trace(trace, output)
        kept = _keep(data, output) if keep_perf_data else None
    return Recording(trace, output, status, kept, notes)


def _run(
    command: Sequence[str],
    data: Path,
    events: Sequence[str],
    mode: str,
    meta: Meta,
    tell: Callable[[str], None],
) -> int:
    """Run the command under perf; returns its exit status."""
    with contextlib.ExitStack() as stack:
        held = stack.enter_context(HeldCommand(command))
        group = _join_cgroup(held, mode, tell, stack)
        if group is not None:
            meta.mode = "cgroup"
            perf = PerfRecord(data, ["-a"], events, ["-G", group.perf_name])
        else:
            meta.mode = "task"
            perf = PerfRecord(data, ["-p", str(held.pid)], events, [])
        stack.enter_context(perf)
        perf.begin()
        try:
            status = held.run()
        finally:
            complaint = perf.end()
        if held.interrupts:
            meta.interrupted = True
            tell("interrupted: the trace ends where the command did")
        if group is not None and group.pids():
            tell("processes of the command are still running; the trace ends with the command itself")
    lost = re.search(r"lost (\d+) (?:chunks|events|samples)", complaint)
    if lost:
        meta.lost = max(meta.lost, int(lost.group(1)))
    elif complaint:
        tell(f"perf says: {complaint.splitlines()[0][:200]}")
    return status


def _join_cgroup(
    held: HeldCommand, mode: str, tell: Callable[[str], None], stack: contextlib.ExitStack
) -> Cgroup | None:
    """A cgroup that holds the command, or None for a recording by task."""
    if mode == "task":
        return None
    try:
        group = stack.enter_context(Cgroup(f"rmaplab-{os.getpid()}"))
        group.add(held.pid)
    except CgroupUnavailable as error:
        if mode == "cgroup":
            raise RecordError(f"{error}; use --mode task") from error
        tell(f"{error}: recording by task, so the teardown of processes is inferred and forks are slower")
        return None
    return group


def _import(data: Path, meta: Meta, full_paths: bool, progress: Progress | None) -> Trace:
    try:
        with script_output(data) as stream:
            return import_text(stream, data, meta, full_paths, progress=progress)
    except TraceError as error:
        # perf says nothing when only the last words, its header, found no room
        if shutil.disk_usage(data.parent).free < _ROOM:
            raise RecordError(DISK_FULL) from error
        raise TraceError(str(error).replace(str(data), "the recording")) from error


def _transparent_hugepages() -> str:
    """The chosen word of `always [madvise] never`."""
    with contextlib.suppress(OSError):
        return Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text().partition("[")[2].partition("]")[0]
    return ""


def _report_losses(trace: Trace, tell: Callable[[str], None]) -> None:
    if trace.meta.lost:
        tell(f"perf lost {trace.meta.lost} records: no exact verdict is possible; record on an idle machine")


def _keep(data: Path, output: Path) -> Path:
    """Move perf.data out of the scratch directory."""
    kept = output.with_name(f"{output.stem}.perf.data")
    try:
        os.replace(data, kept)
        return kept
    except OSError as error:
        raise RecordError(f"cannot keep {kept}: {error.strerror}") from error
