# SPDX-License-Identifier: GPL-2.0-only
"""perf.data, by way of perf itself: its header, and its events as text."""

from __future__ import annotations

import contextlib
import fcntl
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final, cast

from rmaplab.trace.errors import TraceError
from rmaplab.trace.perf_text import PERF_SCRIPT_OPTIONS
from rmaplab.trace.schema import Meta

__all__ = ["PERF_MAGICS", "find_perf", "read_header", "script_output"]

PERF_MAGICS: Final = (b"PERFILE2", b"2ELIFREP", b"PERFFILE")
"""First eight bytes of perf.data."""

_PIPE: Final = 1 << 20
"""Bytes: as much as any user may ask for."""


def find_perf() -> str:
    """Where perf is.

    :raises TraceError: it is not installed
    """
    perf = shutil.which("perf")
    if perf is None:
        raise TraceError(
            "perf is not installed; install it (Debian: apt install linux-perf, Fedora: dnf install perf) "
            "or import on the recording machine"
        )
    return perf


def read_header(path: Path, meta: Meta) -> None:
    """Fill in what the header of a perf.data tells about machine and command."""
    done = subprocess.run(
        [find_perf(), "script", "--header-only", "-i", _argument(path)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    values: dict[str, str] = {}
    for line in done.stdout.splitlines():
        match = re.match(r"# (\w[\w ]*?) : (.*)$", line)
        if match:
            values.setdefault(match.group(1).strip(), match.group(2).strip())
    meta.kernel = meta.kernel or values.get("os release", "")
    meta.machine = meta.machine or values.get("arch", "")
    if not meta.cpus and values.get("nrcpus avail", "").isdigit():
        meta.cpus = int(values["nrcpus avail"])
    command = values.get("cmdline", "")
    if command:
        with contextlib.suppress(ValueError):
            words = shlex.split(command)
            if meta.mode == "unknown":
                meta.mode = "cgroup" if {"-G", "--cgroup"} & set(words) else "task"
            if not meta.command and "--" in words:
                meta.command = words[words.index("--") + 1 :]


@contextlib.contextmanager
def script_output(path: Path) -> Iterator[BinaryIO]:
    """The output of `perf script` on `path`, while it is made.

    :raises TraceError: perf fails
    """
    with tempfile.TemporaryFile() as complaints:
        process = subprocess.Popen(
            [find_perf(), "script", *PERF_SCRIPT_OPTIONS, "-i", _argument(path)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=complaints,
            # unbuffered: a read gives what is there, and does not wait for more
            bufsize=0,
        )
        assert process.stdout is not None
        # perf goes on printing while we read what it has printed
        with contextlib.suppress(OSError):
            fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, _PIPE)
        finished = False
        try:
            yield cast(BinaryIO, process.stdout)
            finished = True
        except TraceError as error:
            # perf's own complaint says more about a damaged file than the text that is missing
            process.stdout.close()
            process.wait()
            said = _complaint(complaints)
            if process.returncode and said:
                raise TraceError(f"cannot read {path}: perf script says: {said}") from error
            raise
        finally:
            process.stdout.close()
            if not finished and process.poll() is None:
                process.terminate()
            process.wait()
        if process.returncode:
            said = _complaint(complaints) or f"exit status {process.returncode}"
            raise TraceError(f"cannot read {path}: perf script says: {said}")


def _argument(path: Path) -> str:
    """A path that perf cannot take for an option or for standard input."""
    return str(path) if path.is_absolute() else f"./{path}"


def _complaint(stderr: BinaryIO) -> str:
    """The last line that perf wrote."""
    stderr.seek(0)
    lines = stderr.read(1 << 16).decode("utf-8", "replace").split("\n")
    said = [line.strip() for line in lines if line.strip()]
    return said[-1][:200] if said else ""
