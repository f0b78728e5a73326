# SPDX-License-Identifier: GPL-2.0-only
"""A cgroup of our own for one recording.

perf counts CPU-wide events of one cgroup. That sees the teardown of an exiting task, and costs the
command's forks nothing; per-task events do neither.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Final

__all__ = ["Cgroup", "CgroupUnavailable"]

_MOUNTS: Final = Path("/proc/mounts")
_SELF: Final = Path("/proc/self/cgroup")
_REMOVE_TRIES: Final = 50
_REMOVE_PAUSE: Final = 0.02
"""Seconds. A process leaves its cgroup a moment after its parent has reaped it."""


class CgroupUnavailable(Exception):
    """No cgroup can be made; says why."""


class Cgroup:
    """A new cgroup in the hierarchy that perf uses, removed at the end of the `with` block."""

    def __init__(self, name: str) -> None:
        mount, own = _hierarchy()
        error: OSError | None = None
        # below our own cgroup the limits that hold for us go on to hold for the command
        for parent in dict.fromkeys((mount / own, mount)):
            path = parent / name
            try:
                path.mkdir()
            except OSError as reason:
                error = reason
                continue
            self.path = path
            """Directory of the cgroup."""
            self.perf_name = str(path.relative_to(mount))
            """What `perf record -G` calls it."""
            self._parent = parent
            return
        raise CgroupUnavailable(f"cannot make a cgroup under {mount}: {error.strerror if error else 'no path'}")

    def __enter__(self) -> Cgroup:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def add(self, pid: int) -> None:
        """Move the process `pid` into it.

        :raises CgroupUnavailable: the kernel refuses
        """
        try:
            (self.path / "cgroup.procs").write_text(f"{pid}\n")
        except OSError as error:
            raise CgroupUnavailable(f"cannot move a process into {self.path}: {error.strerror}") from error

    def pids(self) -> list[int]:
        """The processes that are in it."""
        try:
            return [int(word) for word in (self.path / "cgroup.procs").read_text().split()]
        except OSError:
            return []

    def remove(self) -> None:
        """Remove it. Processes that the command left behind live on in the cgroup above."""
        for _ in range(_REMOVE_TRIES):
            for pid in self.pids():
                with contextlib.suppress(OSError):
                    (self._parent / "cgroup.procs").write_text(f"{pid}\n")
            try:
                self.path.rmdir()
                return
            except FileNotFoundError:
                return
            except OSError:
                time.sleep(_REMOVE_PAUSE)


def _hierarchy() -> tuple[Path, str]:
    """(mount point of the hierarchy that perf looks names up in, our own cgroup in it)."""
    unified: Path | None = None
    try:
        mounts = _MOUNTS.read_text(errors="surrogateescape").splitlines()
    except OSError as error:
        raise CgroupUnavailable(f"cannot read {_MOUNTS}: {error.strerror}") from error
    for line in mounts:
        fields = line.split()
        if len(fields) < 4:
            continue
        path = Path(fields[1].replace("\\040", " "))
        # perf prefers the perf_event controller of cgroup v1 where both are mounted
        if fields[2] == "cgroup" and "perf_event" in fields[3].split(","):
            return path, _own("perf_event")
        if fields[2] == "cgroup2" and unified is None:
            unified = path
    if unified is None:
        raise CgroupUnavailable("no cgroup file system is mounted")
    return unified, _own("")


def _own(controller: str) -> str:
    """Our cgroup, relative to the mount point; "" if it lies outside of what is mounted."""
    with contextlib.suppress(OSError):
        for line in _SELF.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if (controller in controllers.split(",") if controller else not controllers) and ".." not in path:
                return path.lstrip(os.sep)
    return ""
