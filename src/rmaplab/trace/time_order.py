# SPDX-License-Identifier: GPL-2.0-only
"""Puts raw events into the order of time. perf writes them per CPU and merges only nearly in order."""

from __future__ import annotations

from operator import itemgetter
from typing import Final

from rmaplab.trace.perf_text import RawEvent

__all__ = ["TimeOrder"]

_WINDOW: Final = 1 << 18
"""Events held back: more than perf's own buffers let pass each other, and a bound on the memory."""

_by_time: Final = itemgetter(0)


class TimeOrder:
    """A stable sort by time that works on a stream.

    An event that comes more than `window` events too late cannot go to its place any more: it is passed
    on where it is and counted in `late`.

    >>> order = TimeOrder()
    >>> order.push([(5, 1, 6, 0, 0), (3, 2, 6, 0, 0)])
    []
    >>> [event[0] for event in order.flush()]
    [3, 5]
    """

    def __init__(self, window: int = _WINDOW) -> None:
        self.late = 0
        self._window = window
        self._held: list[RawEvent] = []
        self._newest_out = -1

    def push(self, events: list[RawEvent]) -> list[RawEvent]:
        """Take events in; give back those whose place is certain."""
        self._held += events
        if len(self._held) < 2 * self._window:
            return []
        return self._release(len(self._held) - self._window)

    def flush(self) -> list[RawEvent]:
        """Give back everything that is left."""
        return self._release(len(self._held))

    def _release(self, count: int) -> list[RawEvent]:
        # timsort: linear on input that is nearly in order
        self._held.sort(key=_by_time)
        out = self._held[:count]
        del self._held[:count]
        if out:
            if out[0][0] < self._newest_out:
                self.late += sum(1 for event in out if event[0] < self._newest_out)
            self._newest_out = max(self._newest_out, out[-1][0])
        return out
