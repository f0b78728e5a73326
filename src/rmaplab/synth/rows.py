# SPDX-License-Identifier: GPL-2.0-only
"""Collects the rows of a generated trace. Only columns that a generator varies are kept while it runs."""

from typing import Any

from rmaplab.trace.schema import Meta, Trace

__all__ = ["Rows"]

_STEP_NS = 2000  # time from one row to the next


class Rows:
    """Rows in order. Every row is an operation of its own, but for those of an execve."""

    def __init__(self) -> None:
        self.op: list[str] = []
        self.tid: list[int] = []
        self.pid: list[int] = []
        self.addr: list[int] = []
        self.len: list[int] = []
        self.prot: list[int] = []
        self.flags: list[int] = []
        self.pgoff: list[int] = []
        self.file: list[int] = []
        self.peer: list[int] = []
        self.ret: list[int] = []

    def __len__(self) -> int:
        return len(self.op)

    def add(
        self,
        op: str,
        tid: int,
        pid: int,
        addr: int = 0,
        length: int = 0,
        prot: int = 0,
        flags: int = 0,
        pgoff: int = 0,
        file: int = -1,
        peer: int = 0,
        ret: int = 0,
    ) -> None:
        """One row; the columns are those of docs/trace-format.md."""
        self.op.append(op)
        self.tid.append(tid)
        self.pid.append(pid)
        self.addr.append(addr)
        self.len.append(length)
        self.prot.append(prot)
        self.flags.append(flags)
        self.pgoff.append(pgoff)
        self.file.append(file)
        self.peer.append(peer)
        self.ret.append(ret)

    def trace(self, meta: Meta) -> Trace:
        """The trace; its columns are those collected, so nothing may be added afterwards."""
        count = len(self.op)
        calls: list[int] = []
        quiescent: list[bool] = []
        call = 0
        for op in self.op:
            exec_part = op in ("exec", "exec_map")
            if not exec_part:
                call += 1
            calls.append(call)
            quiescent.append(not exec_part and op != "exec_prepare")
        zeros = [0] * count
        columns: dict[str, list[Any]] = {
            "time": list(range(0, count * _STEP_NS, _STEP_NS)),
            "tid": self.tid,
            "pid": self.pid,
            "call": calls,
            "op": self.op,
            "addr": self.addr,
            "len": self.len,
            "addr2": zeros,
            "len2": list(zeros),
            "prot": self.prot,
            "flags": self.flags,
            "pgoff": self.pgoff,
            "file": self.file,
            "peer": self.peer,
            "ret": self.ret,
            "quiescent": quiescent,
            "truth": [None] * count,
        }
        meta.duration_ns = count * _STEP_NS
        return Trace(columns, meta)
