# SPDX-License-Identifier: GPL-2.0-only
"""`perf record` as a process that is started, told to begin, and told to end."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rmaplab.trace.errors import RecordError, TraceError
from rmaplab.trace.perf_data import find_perf

__all__ = ["DISK_FULL", "PerfRecord", "check_permission", "check_version"]

DISK_FULL: Final = "the disk is full: perf could not write the recording; make room or use -o elsewhere"
_OLDEST: Final = (5, 15)
"""First perf with --synth (commit 41b740b6e8a9 "perf record: Add --synth option")."""
_START_SECONDS: Final = 120.0
"""perf opens one event after the other on every CPU; with many CPUs that takes its time."""
_STOP_SECONDS: Final = 600.0
_PARANOID: Final = Path("/proc/sys/kernel/perf_event_paranoid")
_CAP_SYS_ADMIN: Final = 21
_CAP_PERFMON: Final = 38
_PR_SET_PDEATHSIG: Final = 1
_CHATTER: Final = re.compile(r"\[ perf record: (?:Woken up|Captured and wrote)|Events (?:en|dis)abled|=+$|Error:$")


def check_version() -> str:
    """The version of perf.

    :raises RecordError: it is missing or too old
    """
    try:
        perf = find_perf()
    except TraceError as error:
        raise RecordError(
            "perf is not installed; install it (Debian: apt install linux-perf, Fedora: dnf install perf)"
        ) from error
    done = subprocess.run([perf, "--version"], capture_output=True, text=True, errors="replace", check=False)
    match = re.search(r"(\d+)\.(\d+)\S*", done.stdout)
    if match is None:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise RecordError(f"perf does not work: {said[0][:200] if said else f'exit status {done.returncode}'}")
    if (int(match.group(1)), int(match.group(2))) < _OLDEST:
        raise RecordError(f"perf {match.group()} is too old; rmaplab needs perf 5.15 or newer")
    return match.group()


def check_permission() -> None:
    """May this user record kernel events at all?

    :raises RecordError: no; says which setting forbids it
    """
    if os.geteuid() == 0:
        return
    capabilities = 0
    with contextlib.suppress(OSError, ValueError, IndexError):
        status = Path("/proc/self/status").read_text()
        capabilities = int(status.partition("CapEff:")[2].split()[0], 16)
    if capabilities >> _CAP_SYS_ADMIN & 1 or capabilities >> _CAP_PERFMON & 1:
        return
    with contextlib.suppress(OSError, ValueError):
        paranoid = int(_PARANOID.read_text())
        if paranoid > -1:
            raise RecordError(
                f"{_PARANOID} is {paranoid} and forbids kernel events; run as root, or set it to -1 "
                "(sysctl kernel.perf_event_paranoid=-1)"
            )


class PerfRecord:
    """One run of `perf record`, beside the command and not as its parent.

    So its complaints and the command's output stay apart, and the command's exit status is its own.

    `scope` says what is recorded: `["-a"]` and a `-G` after the events, or `["-p", PID]`.
    """

    def __init__(self, data: Path, scope: Sequence[str], events: Sequence[str], after: Sequence[str]) -> None:
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115  closed by __exit__
        control_read, self._control = os.pipe()
        self._ack, ack_write = os.pipe()
        # not -q: it would silence errors too
        command = [
            find_perf(), "record", "-o", str(data), "--data", "--synth", "no",
            *_buffers(), "--control", f"fd:{control_read},{ack_write}",
            *scope, *events, *after,
        ]  # fmt: skip
        # Found before the fork. perf must not outlive us: it would record an empty cgroup for ever.
        libc = ctypes.CDLL(None, use_errno=True)
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._complaints,
                pass_fds=(control_read, ack_write),
                # Ctrl-C is for the command; perf ends when the command has
                start_new_session=True,
                preexec_fn=lambda: libc.prctl(_PR_SET_PDEATHSIG, signal.SIGINT),
            )
        except OSError as error:
            raise RecordError(f"perf cannot be started: {error.strerror}") from error
        finally:
            os.close(control_read)
            os.close(ack_write)

    def __enter__(self) -> PerfRecord:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        for descriptor in (self._control, self._ack):
            with contextlib.suppress(OSError):
                os.close(descriptor)
        self._complaints.close()

    def begin(self) -> None:
        """Returns when the events are counted: perf answers once its main loop runs.

        :raises RecordError: perf gave up
        """
        try:
            os.write(self._control, b"enable\n")
        except OSError as error:
            raise self._failure() from error
        deadline = time.monotonic() + _START_SECONDS
        while True:
            # when perf has gone, this reads end of file
            if select.select([self._ack], [], [], 0.5)[0]:
                if os.read(self._ack, 16).startswith(b"ack"):
                    return
                raise self._failure()
            if time.monotonic() > deadline:
                raise RecordError(f"perf did not start within {_START_SECONDS:.0f} seconds; nothing was recorded")

    def running(self) -> bool:
        """perf has not ended yet."""
        return self._process.poll() is None

    def end(self) -> str:
        """Stop recording; returns what perf had to say, "" if all went well.

        :raises RecordError: perf failed, the recording is not to be trusted
        """
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise RecordError("perf did not end; nothing was kept") from None
        said = self._said()
        # perf ends itself by the signal that stopped it, even when it could not write everything
        if self._process.returncode not in (0, -signal.SIGINT) or "failed to write perf data" in said:
            raise self._failure()
        return said

    def _said(self) -> str:
        """What perf wrote to stderr, without its reports of success."""
        self._complaints.seek(0)
        text = self._complaints.read(1 << 16).decode("utf-8", "replace")
        lines = (line.strip() for line in text.splitlines())
        return "\n".join(line for line in lines if line and not _CHATTER.match(line))

    def _failure(self) -> RecordError:
        """Why perf gave up, as one line."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        said = self._said()
        lower = said.lower()
        if "no space left" in lower:
            return RecordError(DISK_FULL)
        if "paranoid" in lower or "permission" in lower or "operation not permitted" in lower:
            value = ""
            with contextlib.suppress(OSError):
                value = f" ({_PARANOID} is {_PARANOID.read_text().strip()}, -1 allows it)"
            return RecordError(f"recording kernel events is forbidden{value}; run as root")
        lines = said.splitlines()
        reason = lines[0][:200] if lines else f"exit status {self._process.returncode}"
        return RecordError(f"perf record failed: {reason}")


def _buffers() -> list[str]:
    """`-m`, the size of perf's buffer of each CPU: large, for nothing may be lost, but bounded in sum."""
    if os.geteuid() != 0:
        # what may be locked without privilege is small, and perf knows how much it is
        return []
    cpus = os.cpu_count() or 1
    return ["-m", "16M" if cpus <= 32 else "8M" if cpus <= 128 else "4M"]
