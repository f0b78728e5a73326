# SPDX-License-Identifier: GPL-2.0-only
"""A world without a kernel: tasks that read and write cells and take locks, so that what interleavings do is plain."""

from collections.abc import Sequence
from typing import Any

from rmaplab.check.engine import Run
from rmaplab.check.model_locks import CheckedLocks
from rmaplab.check.violation import Violation

__all__ = ["Toy"]

Program = Sequence[Sequence[tuple[Any, ...]]]


class Cell:
    """Memory."""


class _Execution:
    def __init__(self, programs: Program) -> None:
        self.run = Run([f"CPU{i}" for i in range(len(programs))])
        self.locks = CheckedLocks(self.run, {})
        self.cells = {name: Cell() for name in "xyzABC"}
        for cell in self.cells.values():
            self.run.name(cell)
        self.values = dict.fromkeys("xyz", 0)
        self.results: list[list[Any]] = [[] for _ in programs]
        self.run.start([self._body(i, program) for i, program in enumerate(programs)])

    def _body(self, index: int, program: Sequence[tuple[Any, ...]]) -> Any:
        def block(part: Sequence[tuple[Any, ...]]) -> None:
            for op in part:
                self._op(index, op, block)

        return lambda: block(program)

    def _op(self, index: int, op: tuple[Any, ...], block: Any) -> None:
        kind, name = op[0], op[1]
        cell = self.cells[name]
        run, out = self.run, self.results[index]
        if kind == "r":
            run.read(cell, "v")
            out.append(self.values[name])
        elif kind == "w":
            run.write(cell, "v")
            self.values[name] = op[2]
        elif kind == "rmw":
            run.read(cell, "v", True)
            value = self.values[name]
            run.write(cell, "v")
            self.values[name] = value * 3 + op[2]
        elif kind == "choice":
            out.append(run.point("choice", outcomes=op[2]))
        elif kind == "assert":
            run.read(cell, "v")
            if self.values[name] == op[2]:
                raise Violation("toy", f"{name} is {op[2]}")
        elif kind == "try":
            guard = self.locks._try(self.locks._lock("folio", cell), True)
            out.append(guard is not None)
            if guard is not None:
                with guard:
                    block(op[2])
        else:  # "W" or "R": a lock for writing or reading
            lock = self.locks._lock("folio" if kind.endswith("t") else "anon_vma", cell)
            with self.locks._acquire(lock, kind[0] == "W"):
                block(op[2])

    def step(self, index: int, outcome: int = 0) -> Any:
        return self.run.step(index, outcome)

    def state(self) -> Any:
        return tuple(sorted(self.values.items())), tuple(map(tuple, self.results))

    def finish(self) -> Violation | None:
        if self.run.violation is None and not self.run.done():
            self.run.check_deadlock()
        self.run.abandon()
        return self.run.violation

    def abandon(self) -> None:
        self.run.abandon()


class Toy:
    """As :class:`rmaplab.check.execution.Laboratory`, for programs of operations:

    ("r", cell), ("w", cell, value), ("rmw", cell, value): atomic accesses
    ("R" or "W", lock, [operations]): a section under a lock, shared or not; "Wt": under one that others may try
    ("try", lock, [operations]): only if the lock is free
    ("choice", "x", n): one of n outcomes
    ("assert", cell, value): a violation if the cell has that value
    """

    def __init__(self, programs: Program) -> None:
        self.programs = programs

    def execute(self, report: bool = False) -> Any:
        return _Execution(self.programs)
