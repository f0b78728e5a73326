# SPDX-License-Identifier: GPL-2.0-only
"""The recorded command: started, but held back before its exec until perf is ready."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Any, Final

from rmaplab.trace.errors import RecordError

__all__ = ["HeldCommand"]

# Runs in a small interpreter of its own: after its exec nothing of it is left, and the first exec of the
# recording is that of the command. It must undo what Python does to signals.
_HOLD: Final = """
import os, signal, sys
go, fail = int(sys.argv[1]), int(sys.argv[2])
command = sys.argv[3:]
if not os.read(go, 1):
    sys.exit(1)
os.close(go)
os.set_inheritable(fail, False)
for name in ("SIGPIPE", "SIGXFSZ"):
    signal.signal(getattr(signal, name), signal.SIG_DFL)
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
try:
    try:
        os.execvp(command[0], command)
    except OSError as error:
        if error.errno != 8:
            raise
        # a script without #! is for the shell
        os.execv("/bin/sh", ["/bin/sh", *command])
except OSError as error:
    os.write(fail, (error.strerror or "cannot be run").encode())
    os._exit(127)
"""

_FORWARDED: Final = (signal.SIGTERM, signal.SIGHUP)


class HeldCommand:
    """A command that has a process, but does not run before `run()`."""

    def __init__(self, command: Sequence[str]) -> None:
        self._name = command[0]
        go_read, self._go = os.pipe()
        self._fail, fail_write = os.pipe()
        os.set_inheritable(go_read, True)
        os.set_inheritable(fail_write, True)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _HOLD, str(go_read), str(fail_write), *command],
                # what the caller hands to the command as open descriptors goes through; Python's do not
                close_fds=False,
            )
        except OSError as error:
            raise RecordError(f"{self._name}: cannot be started: {error.strerror}") from error
        finally:
            os.close(go_read)
            os.close(fail_write)
        self.interrupts = 0
        """How often the user pressed Ctrl-C."""

    @property
    def pid(self) -> int:
        """Process of the command."""
        return self._process.pid

    def __enter__(self) -> HeldCommand:
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in (self._go, self._fail):
            with contextlib.suppress(OSError):
                os.close(descriptor)
        self._go = self._fail = -1
        if self._process.poll() is None:
            self._process.terminate()
            self._process.wait()

    def run(self) -> int:
        """Let it go, and wait for its end. Returns its exit status, 128 + n if signal n ended it.

        :raises RecordError: there is no such command
        """
        previous: dict[signal.Signals, Any] = {}

        def forward(number: int, _: FrameType | None) -> None:
            with contextlib.suppress(OSError):
                self._process.send_signal(number)

        def interrupted(_: int, __: FrameType | None) -> None:
            # the terminal has sent it to the command too, which may end in its own way
            self.interrupts += 1
            if self.interrupts > 1:
                with contextlib.suppress(OSError):
                    self._process.send_signal(signal.SIGTERM if self.interrupts == 2 else signal.SIGKILL)

        with contextlib.suppress(ValueError):  # not the main thread: signals go elsewhere
            if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
                previous[signal.SIGINT] = signal.signal(signal.SIGINT, interrupted)
            for number in _FORWARDED:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    previous[number] = signal.signal(number, forward)
        try:
            os.write(self._go, b"!")
            status = self._process.wait()
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
        os.set_blocking(self._fail, False)
        with contextlib.suppress(BlockingIOError):
            reason = os.read(self._fail, 200).decode("utf-8", "replace")
            if reason == os.strerror(2) and os.sep not in self._name:
                raise RecordError(f"{self._name}: command not found")
            if reason:
                raise RecordError(f"{self._name}: {reason}")
        return status if status >= 0 else 128 - status
