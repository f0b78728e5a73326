# SPDX-License-Identifier: GPL-2.0-only
"""Writes the text of `perf script` by hand, one event a call, for tests."""

from __future__ import annotations

import gzip
from pathlib import Path

from rmaplab.trace import Trace, open_trace
from rmaplab.trace.schema import unpack_truth

CACHE = {"v": "vm_area_struct", "a": "anon_vma", "c": "anon_vma_chain"}
SIZES = {"v": (192, 192), "a": (96, 104), "c": (64, 64)}
SITES = {"v": "vm_area_alloc", "a": "__anon_vma_prepare", "c": "__anon_vma_prepare"}


class PerfText:
    """Lines of events 1 us apart; `at` moves the clock of the next one."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.now = 1_000_000_000

    def event(self, tid: int, name: str, rest: str = "", *, pid: int | None = None, comm: str = "prog") -> None:
        self.now += 1000
        who = f"{pid if pid is not None else tid}/{tid}"
        stamp = f"{self.now // 10**9}.{self.now % 10**9:09d}"
        self.lines.append(f"{comm:>16} {who} [000] {stamp}: {name} {rest}".rstrip())

    def enter(self, tid: int, call: str, *values: int, **names: int) -> None:
        args = ", ".join(f"{name}: {value & (1 << 64) - 1:#010x}" for name, value in names.items())
        self.event(tid, f"syscalls:sys_enter_{call}:", args)

    def exit(self, tid: int, call: str, ret: int = 0) -> None:
        self.event(tid, f"syscalls:sys_exit_{call}:", f"{ret & (1 << 64) - 1:#x}")

    def fault(self, tid: int, addr: int, code: int = 6, *, kernel: bool = False) -> None:
        where = "kernel" if kernel else "user"
        self.event(tid, f"exceptions:page_fault_{where}:", f"address={addr:#x} ip=0x401000 error_code={code:#x}")

    def lock(self, tid: int, mm: str = "0xffff888000001000", *, write: bool = True, success: bool = True) -> None:
        flags = f"write={str(write).lower()} success={str(success).lower()}"
        self.event(tid, "mmap_lock:mmap_lock_acquire_returned:", f"mm={mm} memcg_id=5 {flags}")

    def slab(self, tid: int, what: str, *, site: str = "", name: str = "") -> None:
        """`+v1` allocates vm_area_struct 1, `-c2` frees anon_vma_chain 2."""
        kind, number = what[1], int(what[2:])
        site = site or SITES[kind]
        head = f"call_site={site}+0x1a ptr={0xFFFF888100000000 + number * 64:#x} name={name or CACHE[kind]}"
        if what[0] == "+":
            size, slot = SIZES[kind]
            rest = f"{head} bytes_req={size} bytes_alloc={slot} gfp_flags=GFP_KERNEL node=-1 accounted=true"
            self.event(tid, "kmem:kmem_cache_alloc:", rest)
        else:
            self.event(tid, "kmem:kmem_cache_free:", head)

    def mmap2(self, tid: int, addr: int, length: int, *, prot: str = "rw-p", name: str = "//anon",
              offset: int | None = None, inode: str = "00:00 0 0") -> None:  # fmt: skip
        offset = addr if offset is None else offset
        rest = f"{tid}/{tid}: [{addr:#x}({length:#x}) @ {offset:#x} {inode}]: {prot} {name}"
        self.event(tid, "PERF_RECORD_MMAP2", rest)

    def comm_exec(self, tid: int, comm: str = "prog") -> None:
        self.event(tid, "PERF_RECORD_COMM", f"exec: {comm}:{tid}/{tid}")

    def new_task(self, tid: int, child: int, flags: int = 0x1200000) -> None:
        rest = f"pid={child} comm=prog clone_flags={flags:x} oom_score_adj=0"
        self.event(tid, "task:task_newtask:", rest)

    def gone(self, tid: int) -> None:
        self.event(tid, "sched:sched_process_exit:", f"comm=prog pid={tid} prio=120 group_dead=true")

    def exit_mmap(self, tid: int, tree: int = 0xFFFF888000001040) -> None:
        self.event(tid, "mmap:exit_mmap:", f"mt_mod {tree:#x}, DESTROY")

    def start(self, tid: int = 10, mm: str = "0xffff888000001000") -> None:
        """The recording's first exec, as a cgroup recording shows it."""
        self.enter(tid, "execve", filename=1, argv=2, envp=3)
        self.slab(tid, "+v900")
        self.lock(tid, mm)
        self.slab(tid, "+c901")
        self.slab(tid, "+a902")
        self.comm_exec(tid)
        self.mmap2(tid, 0x7FFC00000000, 0x21000, name="[stack]")
        self.exit(tid, "execve")

    def text(self) -> str:
        return "\n".join(self.lines) + "\n"

    def trace(self, directory: Path, *, compress: bool = False) -> Trace:
        path = directory / "recording.txt"
        data = self.text().encode("latin-1")
        path.write_bytes(gzip.compress(data) if compress else data)
        return open_trace(path)


def ops(trace: Trace, tid: int = 0, *, drop: tuple[str, ...] = ("exec_map",)) -> list[str]:
    """Operations in order, of one thread or all."""
    columns = trace.columns
    return [
        op for op, who in zip(columns["op"], columns["tid"], strict=True) if op not in drop and (not tid or who == tid)
    ]


def row(trace: Trace, op: str, nth: int = 0) -> dict[str, object]:
    """The n-th row of an operation as a dict."""
    index = [i for i, name in enumerate(trace.columns["op"]) if name == op][nth]
    return {name: column[index] for name, column in trace.columns.items()}


def truth_of(trace: Trace, op: str, nth: int = 0) -> list[str]:
    """The slab events of the call that the n-th row of an operation belongs to: `+v`, `-c`, ..."""
    call = row(trace, op, nth)["call"]
    found = [
        words
        for words, number in zip(trace.columns["truth"], trace.columns["call"], strict=True)
        if number == call and words is not None
    ]
    assert len(found) == 1, "a call carries its truth exactly once"
    return [("+" if alloc else "-") + "vac"[cache] for _, cache, alloc in map(unpack_truth, found[0])]
