# SPDX-License-Identifier: GPL-2.0-only
"""Which events a recording needs, and which of them this kernel has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from rmaplab.trace.errors import RecordError

__all__ = ["choose_events", "find_tracefs"]

_CALLS: Final = (
    "mmap",
    "munmap",
    "mremap",
    "mprotect",
    "pkey_mprotect",
    "brk",
    "madvise",
    "mlock",
    "mlock2",
    "munlock",
    "mlockall",
    "munlockall",
    "shmat",
    "shmdt",
    "execve",
    "execveat",
    "clone",
    "clone3",
    "fork",
    "vfork",
)
"""System calls of which entry and exit are recorded."""

_REQUIRED: Final = (
    "exceptions:page_fault_user",
    "exceptions:page_fault_kernel",
    "task:task_newtask",
    "sched:sched_process_exit",
    "syscalls:sys_enter_mmap",
)
_OPTIONAL: Final = ("mmap:exit_mmap", "mmap_lock:mmap_lock_acquire_returned")
_TRUTH: Final = ("kmem:kmem_cache_alloc", "kmem:kmem_cache_free")
_TRUTH_FILTER: Final = 'name ~ "anon_vma*" || name ~ "vm_area*"'
_WRITES: Final = "error_code & 2"
_THP: Final = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def find_tracefs() -> Path:
    """The directory of the kernel's events.

    :raises RecordError: it is not mounted or not readable
    """
    for path in (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing")):
        try:
            if (path / "events" / "syscalls").is_dir():
                return path
        except PermissionError as error:
            raise RecordError(
                f"the kernel's events in {path} may not be read; run as root (sudo rmaplab record ...)"
            ) from error
        except OSError:
            continue
    raise RecordError("the kernel's events are not to be seen; as root: mount -t tracefs nodev /sys/kernel/tracing")


def choose_events(tracefs: Path, truth: bool, note: Callable[[str], None], *, read_faults: bool = False) -> list[str]:
    """The `-e` and `--filter` arguments of perf record. What the kernel lacks is left out, with a note.

    :raises RecordError: an event without which nothing can be replayed is missing
    """

    def has(event: str) -> bool:
        return (tracefs / "events" / event.replace(":", "/") / "id").exists()

    for event in _REQUIRED:
        if not has(event):
            raise RecordError(
                f"this kernel has no event {event}; rmaplab records on x86 kernels with CONFIG_FTRACE_SYSCALLS"
            )
    arguments: list[str] = []
    for event in ("exceptions:page_fault_user", "exceptions:page_fault_kernel"):
        arguments += ["-e", event]
        if not (read_faults or _read_faults_matter()):
            arguments += ["--filter", _WRITES]
    for event in ("task:task_newtask", "sched:sched_process_exit"):
        arguments += ["-e", event]
    for event in _OPTIONAL:
        if has(event):
            arguments += ["-e", event]
        elif event.startswith("mmap_lock"):
            note(f"this kernel has no event {event}: threads of one process cannot be put in order exactly")
        else:
            note(f"this kernel has no event {event}: the teardown of processes is inferred")
    for call in _CALLS:
        if has(f"syscalls:sys_enter_{call}"):
            arguments += ["-e", f"syscalls:sys_enter_{call}", "-e", f"syscalls:sys_exit_{call}"]
    # ends the window of the last fault; its result never comes
    if has("syscalls:sys_enter_exit_group"):
        arguments += ["-e", "syscalls:sys_enter_exit_group"]
    if truth:
        for event in _TRUTH:
            if not has(event):
                raise RecordError(f"this kernel has no event {event}; record with --no-truth")
            arguments += ["-e", event, "--filter", _TRUTH_FILTER]
    return arguments


def _read_faults_matter() -> bool:
    """A read fault allocates nothing, unless a huge page may serve it: then it prepares like a write."""
    try:
        return "[always]" in _THP.read_text()
    except OSError:
        return False
