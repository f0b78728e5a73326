# SPDX-License-Identifier: GPL-2.0-only
"""Jobs in forked processes, one process a job, a few at once. Ctrl-C asks each running job to end with what it has; a
second one ends them at once."""

import contextlib
import gc
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

from greenlet import GreenletExit

__all__ = ["Died", "Jobs", "Stop"]

T = TypeVar("T")
Stop = Callable[[], bool]
"""Asked by a job now and then: is it to end?"""


@dataclass(frozen=True, slots=True)
class Died:
    """In place of a result: the process ended without one."""

    status: int


@dataclass(slots=True)
class Jobs(Generic[T]):
    """Runs `jobs`. Results come in the order of the jobs; None for those that Ctrl-C kept from being started.

    told: called with the numbers of the running jobs and of those that are done, for a progress line
    """

    jobs: Sequence[Callable[[Stop], T]]
    workers: int
    told: Callable[[list[int], int], None] | None = None
    interrupted: bool = False
    results: list[T | Died | None] = field(default_factory=list)
    _signals: int = 0

    def run(self) -> list[T | Died | None]:
        """All of them, or what is there after Ctrl-C."""
        self.results = [None] * len(self.jobs)
        waiting = list(range(len(self.jobs)))[::-1]
        running: dict[Connection, tuple[int, Any]] = {}
        context = multiprocessing.get_context("fork")
        with self._signal_handler():
            try:
                while running or (waiting and not self._signals):
                    while waiting and len(running) < self.workers and not self._signals:
                        number = waiting.pop()
                        ours, theirs = context.Pipe(duplex=False)
                        process = context.Process(target=_child, args=(self.jobs[number], theirs), daemon=True)
                        process.start()
                        theirs.close()
                        running[ours] = number, process
                    if self.told is not None:
                        self.told([number for number, _ in running.values()], len(self.jobs) - len(waiting))
                    for ready in wait(list(running), timeout=0.2):
                        assert isinstance(ready, Connection)
                        number, process = running.pop(ready)
                        self.results[number] = _receive(ready, process)
                    if self._signals > 1:
                        break
            finally:
                self.interrupted = self._signals > 0
                for connection, (_, process) in running.items():
                    process.terminate()
                    process.join()
                    connection.close()
        return self.results

    @contextlib.contextmanager
    def _signal_handler(self) -> Iterator[None]:
        def asked(number: int, frame: Any) -> None:
            self._signals += 1
            for process in multiprocessing.active_children():  # a terminal signals them too; `kill` does not
                if process.pid is not None:
                    with contextlib.suppress(OSError):
                        os.kill(process.pid, signal.SIGINT)

        before = signal.signal(signal.SIGINT, asked)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)


def _receive(connection: Connection, process: Any) -> Any:
    try:
        return connection.recv()
    except EOFError:
        process.join()
        return Died(process.exitcode or 0)
    finally:
        connection.close()
        process.join()


def _unraisable(problem: Any) -> None:
    """An execution that is given up ends its tasks, generators in them too: nothing to tell"""
    if not isinstance(problem.exc_value, GreenletExit):
        sys.__unraisablehook__(problem)


def _child(job: Callable[[Stop], Any], connection: Connection) -> None:
    """The flag, not an exception: a KeyboardInterrupt could come up in the middle of the model"""
    asked = False

    def handler(number: int, frame: Any) -> None:
        nonlocal asked
        asked = True

    signal.signal(signal.SIGINT, handler)
    sys.unraisablehook = _unraisable
    parent = os.getppid()
    gc.freeze()
    connection.send(job(lambda: asked or os.getppid() != parent))
    connection.close()
